// Text from outside enters a page in one of two ways: as words that are tamed, or as HTML that the server has rendered
// and cleaned (annotate/api/render.py), which happens here and nowhere else, and belongs inside of something with the
// class `text`, which text.css is for.

import { n, t } from "./words.js";

// What would reorder or hide what stands around it, and more than four combining marks on a letter, which reach over the
// lines above and below. The server does the same with what it renders (annotate/api/characters.py).
const REORDERS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]|\u{e0001}/gu;
const STACKED = /(\p{M}{4})\p{M}+/gu;

// Words for a page, such as names: names of people and projects, tags, questions, whatever somebody else has written.
export const tame = (words) =>
  typeof words === "string" ? words.replace(REORDERS, "\ufffd").replace(STACKED, "$1") : words;

// Each of these runs in the direction of its own text. Code runs from left to right, whatever is around it.
const BLOCKS = "p, ul, ol, h1, h2, h3, h4, h5, h6, blockquote, table, th, td"; // an item has the mark of its list

export function bodyOf(html) {
  const box = document.createElement("div");
  box.className = "body";
  box.innerHTML = html;
  for (const block of [box, ...box.querySelectorAll(BLOCKS)]) {
    block.dir = "auto"; // which passes over what has a direction of its own: so fix it before those within get theirs
    block.dir = block.matches(":dir(rtl)") ? "rtl" : "ltr";
  }
  for (const code of box.querySelectorAll("pre, code, math")) code.dir = "ltr";
  for (const note of box.querySelectorAll("p.long")) {
    const count = n(Number(note.dataset.length));
    note.textContent = t("This is too long to be formatted. Characters in all: {count}", { count });
  }
  for (const link of box.querySelectorAll("a[href]")) link.title = link.href; // where it really leads
  return box;
}
