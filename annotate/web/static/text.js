// Text from outside, as HTML that the server has rendered and cleaned (annotate/api/render.py). Here, and nowhere else,
// such HTML goes into a page; it belongs inside of something with the class `text`, which text.css is for.

// Each of these runs in the direction of its own text. Code runs from left to right, whatever is around it.
const BLOCKS = "p, li, ul, ol, h1, h2, h3, h4, h5, h6, blockquote, table, th, td";

export function bodyOf(html) {
  const box = document.createElement("div");
  box.className = "body";
  box.innerHTML = html;
  for (const block of [box, ...box.querySelectorAll(BLOCKS)]) {
    block.dir = "auto"; // which passes over what has a direction of its own: so fix it before those within get theirs
    block.dir = block.matches(":dir(rtl)") ? "rtl" : "ltr";
  }
  for (const code of box.querySelectorAll("pre, code, math")) code.dir = "ltr";
  for (const link of box.querySelectorAll("a[href]")) link.title = link.href; // where it really leads
  return box;
}
