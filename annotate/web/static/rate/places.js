// Places in the visible text of a response, which is the text of its `.body`s, one after the other; and how passages of
// it are made to stand out. Places are counted in UTF-16 units, as the DOM does.

const bodies = (text) => [...text.querySelectorAll(".body")];

export const visible = (text) => bodies(text).map((body) => body.textContent).join("");

// How much of the visible text lies before a place in the DOM.
export function unitsBefore(text, node, offset) {
  let units = 0;
  for (const body of bodies(text)) {
    const range = document.createRange();
    range.selectNodeContents(body);
    const place = range.comparePoint(node, offset);
    if (place < 0) return units;
    if (place === 0) {
      range.setEnd(node, offset);
      return units + range.toString().length;
    }
    units += body.textContent.length;
  }
  return units;
}

export function rangeOf(text, from, to) {
  const range = document.createRange();
  const pieces = piecesOf(text, from, to);
  if (pieces.length) {
    range.setStart(pieces[0].node, pieces[0].from);
    range.setEnd(pieces.at(-1).node, pieces.at(-1).to);
  }
  return range;
}

// The text nodes that a passage runs through: [{node, from, to}].
function piecesOf(text, from, to) {
  const pieces = [];
  let units = 0;
  for (const body of bodies(text)) {
    const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const [first, last] = [Math.max(0, from - units), Math.min(node.length, to - units)];
      if (first < last) pieces.push({ node, from: first, to: last });
      units += node.length;
    }
  }
  return pieces;
}

const KINDS = ["good", "bad", "chosen"]; // as in the style sheet: ::highlight(concord-good), mark[data-mark=good]

// Make passages [{kind, text, from, to}] stand out: with the browser's own highlights, which leave the page as it is; else
// with an element around each piece.
export function paint(root, passages) {
  if ("highlights" in CSS) {
    for (const kind of KINDS) {
      const ranges = passages.filter((one) => one.kind === kind).map(({ text, from, to }) => rangeOf(text, from, to));
      CSS.highlights.set(`concord-${kind}`, new Highlight(...ranges));
    }
    return;
  }
  for (const mark of root.querySelectorAll("mark[data-mark]")) {
    const { parentNode } = mark;
    mark.replaceWith(...mark.childNodes);
    parentNode.normalize();
  }
  for (const { kind, text, from, to } of passages) {
    if (kind === "chosen") continue; // it is the selection
    for (const piece of piecesOf(text, from, to)) {
      const range = document.createRange();
      range.setStart(piece.node, piece.from);
      range.setEnd(piece.node, piece.to);
      const mark = document.createElement("mark");
      mark.dataset.mark = kind;
      range.surroundContents(mark);
    }
  }
}
