// The vote: the same scale as for a pair of responses, what the project asks for beside it, and what is still missing.

import { announce, at, element, radios } from "../dom.js";
import { ALL_BAD, letter, pairSteps } from "../rate/rating.js";
import { t } from "../words.js";

export const freshVote = () => ({ scale: null, bad: false, rationale: "", ratings: {}, seconds: 0, key: newKey() });

const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

export class Vote {
  // `chat` says what is asked for; `given` is filled in, and `changed` hears of it.
  constructor(chat, given, changed) {
    Object.assign(this, { chat, given, changed });
    this.#drawScale();
    this.#drawRatings();
    at("all-bad").hidden = !chat.all_bad;
    at("why").hidden = chat.rationale === "off";
    at("rationale").value = given.rationale;
    at("rationale-label").textContent = chat.rationale === "required" ? t("Why? (required)") : t("Why? (if you like)");
    at("rationale").oninput = () => this.#give(() => (given.rationale = at("rationale").value));
    at("all-bad").onclick = () => this.toggleBad();
  }

  // What is missing, in words; "" when it can be sent.
  get missing() {
    const { scale, rationale } = this.given;
    if (scale === null) return t("Which one is better?");
    if (!this.#rated) return t("Rate both on each line.");
    if (this.chat.rationale === "required" && !rationale.trim()) return t("Say in a few words why.");
    return "";
  }

  get #rated() {
    return this.chat.dimensions.every(({ name }) => this.given.ratings[name]?.every((step) => step));
  }

  body() {
    const { scale, bad, rationale, ratings, seconds, key } = this.given;
    return {
      key,
      strength: scale,
      flags: bad ? [ALL_BAD] : [],
      rationale: this.chat.rationale === "off" ? null : rationale.trim() || null,
      ratings: this.chat.dimensions.length ? ratings : null,
      seconds: Math.round(seconds * 10) / 10,
    };
  }

  digit(number) {
    const input = at("scale").querySelectorAll("input")[number - 1];
    if (!input) return;
    input.checked = true;
    input.dispatchEvent(new Event("change"));
  }

  toggleBad() {
    if (!this.chat.all_bad) return;
    this.#give(() => (this.given.bad = !this.given.bad));
    announce(this.given.bad ? t("Both bad: neither is good enough.") : t("No longer both bad."));
  }

  refresh() {
    at("all-bad").setAttribute("aria-pressed", this.given.bad);
    at("all-bad").classList.toggle("on", this.given.bad);
  }

  #give(change) {
    change();
    this.refresh();
    this.changed();
  }

  #drawScale() {
    const steps = pairSteps(this.chat.strength);
    const give = (value) => this.#give(() => (this.given.scale = value));
    const row = radios("scale", steps, this.given.scale, t("Which one is better?"), give, true);
    row.classList.add("scale");
    at("scale").replaceChildren(row);
    this.refresh();
  }

  #drawRatings() {
    const { dimensions } = this.chat;
    at("ratings").hidden = !dimensions.length;
    at("ratings").replaceChildren(...dimensions.map((one, index) => this.#dimension(one, index)));
  }

  #dimension({ name, anchors }, index) {
    const line = element("div", "", "dimension");
    const words = element("span", name, "what");
    words.dir = "auto";
    line.append(words);
    const given = (this.given.ratings[name] ??= [null, null]);
    for (const side of [0, 1]) {
      const steps = anchors.map((_, step) => [step + 1, String(step + 1)]);
      const label = t("{dimension}, {letter}", { dimension: name, letter: letter(side) });
      const row = radios(`rating-${index}-${side}`, steps, given[side], label, (step) => {
        this.#give(() => (given[side] = step));
      });
      row.querySelectorAll("label").forEach((one, step) => (one.title = anchors[step]));
      const box = element("div", "", "steps-of");
      box.append(element("span", letter(side), "letter"), row);
      line.append(box);
    }
    return line;
  }
}
