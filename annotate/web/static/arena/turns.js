// The conversations on the screen: what the rater said, and below it both replies side by side, as plain text while they
// come and as HTML, which the server has cleaned, when they are whole.

import { at, element } from "../dom.js";
import { letter } from "../rate/rating.js";
import { drawTurns } from "../rate/read.js";
import { tame } from "../text.js";
import { later, t } from "../words.js";

const FAILED = {
  away: later("This side can't be reached just now."),
  slow: later("This side took too long."),
  garbled: later("This side sent something that can't be read."),
  stopped: later("Nothing had come from this side yet."),
  lost: later("This side was broken off."),
};

export class Turn {
  constructor(text, askAgain) {
    this.box = element("article", "", "exchange");
    const said = element("p", tame(text), "mine");
    said.dir = "auto";
    this.pair = element("div", "", "pair");
    this.sides = [0, 1].map((side) => this.#side(letter(side)));
    this.again = element("button", t("Ask again"), "quiet again");
    this.again.type = "button";
    this.again.hidden = true;
    this.again.addEventListener("click", askAgain);
    this.pair.append(...this.sides.map((side) => side.box));
    this.box.append(said, this.pair, this.again);
    at("turns").append(this.box);
    this.text = text;
  }

  #side(said) {
    const box = element("section", "", "reply");
    box.setAttribute("aria-label", t("Reply of {letter}", { letter: said }));
    const head = element("div", "", "side");
    const name = element("span", "", "model");
    name.dir = "auto";
    head.append(element("span", said, "letter"), name);
    const text = element("div", "", "text");
    box.append(head, text);
    return { box, text, name, html: null };
  }

  get whole() {
    return this.sides.every((side) => side.html !== null);
  }

  // Before its events come from the first one on. What is whole stays as it is.
  begin() {
    this.again.hidden = true;
    for (const side of this.sides) {
      if (side.html !== null) continue;
      side.box.setAttribute("aria-busy", "true");
      side.box.classList.remove("failed");
      side.plain = "";
      side.coming = element("div", "", "coming");
      side.coming.dir = "auto";
      side.text.replaceChildren(side.coming);
    }
  }

  hear(event) {
    const side = this.sides[event.side];
    if ("delta" in event) {
      side.plain += event.delta;
      side.drawing ??= requestAnimationFrame(() => { // once a frame: a long reply comes in thousands of pieces
        side.drawing = null;
        if (side.html === null) side.coming.textContent = tame(side.plain);
      });
    } else if (event.html !== null) {
      this.show(event.side, event.html);
    } else {
      side.box.setAttribute("aria-busy", "false");
      side.box.classList.add("failed");
      side.text.replaceChildren(element("p", t(FAILED[event.end] ?? FAILED.lost), "sorry"));
    }
  }

  show(index, html) {
    const side = this.sides[index];
    if (side.html === html) return;
    side.html = html;
    side.box.setAttribute("aria-busy", "false");
    side.box.classList.remove("failed");
    drawTurns(side.text, [{ role: "assistant", html }], false);
  }

  // Nothing more comes.
  end() {
    this.again.hidden = this.whole;
    for (const side of this.sides) side.box.setAttribute("aria-busy", "false");
  }

  reveal(models) {
    this.sides.forEach((side, index) => (side.name.textContent = tame(models[index])));
  }

  remove() {
    this.box.remove();
  }
}

// Whether the end of the conversations is in view, so that what comes should stay in view.
export function atEnd() {
  const talk = scroller();
  return talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
}

export function toEnd() {
  scroller().scrollTo(0, scroller().scrollHeight);
}

const narrow = matchMedia("(max-width: 760px)"); // there the whole page scrolls
const scroller = () => (narrow.matches ? document.getElementById("concord") : at("talk"));
