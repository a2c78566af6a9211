// Rewriting the best response: a text field beside it, in its place on the page. Only one rewrite is kept; a text that is
// as it was is none.

import { announce, at, element, leaves } from "../dom.js";
import { letter, listed } from "./rating.js";
import { t } from "../words.js";

const LONGEST = 20000; // characters that the server takes

export class Rewrite {
  constructor(item) {
    this.item = item;
    this.originals = (item.task.texts ?? []).map((text) => text.replace(/\r\n?/g, "\n")); // as a text field has them
    this.texts = this.originals; // as the rater has left each
    const { edited } = item.rating;
    if (edited) this.texts = this.texts.with(edited.response, edited.text);
    this.writing = null; // the response that is being rewritten
  }

  // The response to rewrite: the one that is rewritten, else the best; of several that are best the rater's current one.
  begin(index = this.#likely()) {
    const { item } = this;
    if (index === undefined) {
      announce(t("Rank the responses first; the best one is rewritten."));
      return this.refresh(true);
    }
    this.#leave();
    this.writing = index;
    const card = at("responses").children[index];
    at("responses").classList.add("rewriting");
    card.classList.add("rewritten-here");
    card.append(this.#writer(index));
    item.refresh();
    const field = card.querySelector("textarea");
    field.focus();
    field.setSelectionRange(0, 0);
    field.scrollTop = 0;
  }

  // Go back to all responses; what was written stays.
  end() {
    if (this.writing === null) return;
    this.#leave();
    if (!this.item.frozen) this.item.refresh();
  }

  refresh(asked = false) {
    const { best, rating: { edited } } = this.item;
    const tip = at("rewrite-tip");
    const buttons = [];
    const button = (words, act, className = "quiet small") => {
      const made = element("button", words, className);
      made.type = "button";
      made.addEventListener("click", act);
      buttons.push(made);
    };
    if (edited) {
      const of = { letter: letter(edited.response) };
      const best_ = best.includes(edited.response) || !best.length;
      tip.textContent = best_ ? t("Your rewrite of {letter} is kept.", of)
        : t("Your rewrite of {letter} is kept, but {letter} is no longer the best.", of);
      tip.classList.toggle("asked", !best_);
      button(t("Go on with {letter}", of), () => this.begin(edited.response));
      button(t("Take back"), () => this.takeBack());
    } else {
      tip.textContent = !best.length ? t("Rank the responses first; the best one is rewritten.")
        : best.length > 1 ? t("{letters} are equally good: choose which one.", { letters: listed(best.map(letter)) })
        : t("It becomes an example of how to answer.");
      tip.classList.toggle("asked", asked);
    }
    for (const index of best) {
      if (index !== edited?.response) button(t("Rewrite {letter}", { letter: letter(index) }), () => this.begin(index));
    }
    at("rewrite-buttons").replaceChildren(...buttons);
    [...at("responses").children].forEach((card, index) => {
      card.querySelector(".head .rewritten")?.remove();
      if (edited?.response === index) card.querySelector(".letter").after(element("span", t("Rewritten ✓"), "rewritten"));
    });
  }

  takeBack() {
    const { edited } = this.item.rating;
    if (!edited) return;
    const { response } = edited;
    this.texts = this.texts.with(response, this.originals[response]);
    this.#leave();
    this.item.give((rating) => (rating.edited = null));
    announce(t("The rewrite is taken back."));
    at("rewrite-buttons").querySelector("button")?.focus();
  }

  #likely() {
    const { best, rating: { edited }, response } = this.item;
    return edited?.response ?? (best.includes(response) ? response : best[0]);
  }

  #leave() {
    if (this.writing === null) return;
    this.writing = null;
    at("responses").classList.remove("rewriting");
    for (const card of at("responses").children) {
      card.classList.remove("rewritten-here");
      card.querySelector(".writer")?.remove();
    }
  }

  #writer(index) {
    const { item } = this;
    const original = this.originals[index];
    const box = element("div", "", "writer");
    const label = element("label", t("Your version of response {letter}", { letter: letter(index) }));
    const field = element("textarea");
    Object.assign(field, { id: "rewritten", value: this.texts[index], maxLength: Math.max(LONGEST, original.length), dir: "auto" });
    label.htmlFor = field.id;
    const state = element("span", "", "state");
    state.setAttribute("role", "status");
    const others = item.best.filter((one) => one !== index);
    const foot = element("div", "", "row");
    const take = element("button", t("Take back"), "quiet small");
    const done = element("button", t("Done"), "primary small");
    done.append(" ", element("kbd", "Ctrl+Enter"));
    const show = () => {
      const kept = item.rating.edited?.response === index;
      state.textContent = kept ? t("Kept ✓") : t("Not changed yet");
      take.hidden = !kept;
    };
    field.addEventListener("input", () => {
      this.texts = this.texts.with(index, field.value);
      const changed = field.value.trim() !== original.trim() && field.value.trim();
      item.give((rating) => (rating.edited = changed ? { response: index, text: field.value } : null));
      show();
    });
    field.addEventListener("keydown", (event) => leaves(event) && this.#done());
    take.addEventListener("click", () => this.takeBack());
    done.addEventListener("click", () => this.#done());
    foot.append(state);
    for (const one of others) {
      const other = element("button", t("Rewrite {letter} instead", { letter: letter(one) }), "quiet small");
      other.type = "button";
      other.addEventListener("click", () => this.#instead(index, one));
      foot.append(other);
    }
    for (const one of [take, done]) one.type = "button";
    foot.append(take, done);
    box.append(label, field, foot);
    show();
    return box;
  }

  // Of several that are equally good another one: only one rewrite is kept.
  #instead(from, to) {
    if (this.item.rating.edited?.response === from) this.item.give((rating) => (rating.edited = null));
    this.begin(to);
    const field = at("rewritten");
    if (field.value.trim() !== this.originals[to].trim()) field.dispatchEvent(new Event("input"));
  }

  #done() {
    this.end();
    announce(this.item.rating.edited ? t("Your rewrite is kept.") : t("Nothing was changed."));
    at("submit").focus();
  }
}
