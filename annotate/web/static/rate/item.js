// An item on the screen: its responses, their ranks, the scale; what is missing, and what a digit gives. What a project
// asks for beside the ranking is in rate/asks.js. It knows nothing of the server.
//
// The HTML of prompts and responses was cleaned on the server (annotate/api/render.py); all else goes in as text.

import { Panel } from "./asks.js";
import { announce, at, element, page, radios } from "../dom.js";
import {
  ALL_BAD, LETTERS, asksOf, bestOf, inWords, letter, listed, pairSteps, single, strengthSteps,
} from "./rating.js";
import { drawTurns, foldPrompt } from "./read.js";
import { t } from "../words.js";

const PAUSE = 500; // ms

export class Item {
  // What can be given has a name, which its radio buttons share: "scale" of a pair, else "rank-0" … and "strength",
  // then "rating-0-0" … (dimension, response).
  constructor(task, rating, changed) {
    Object.assign(this, { task, rating, changed, asks: asksOf(task) });
    this.count = task.responses.length;
    this.pair = this.count === 2;
    this.chosen = null; // what the rater went to, to give it by a digit; else it is what is missing first
    this.last = null; // what was given last
    this.covered = task.warnings.length > 0;
    this.frozen = false; // submitted: nothing changes any more
    this.since = performance.now();
  }

  draw() {
    const { task } = this;
    drawTurns(at("prompt"), task.prompt, task.prompt.length > 1);
    at("prompt-box").classList.remove("unfolded");
    at("responses").replaceChildren(...task.responses.map((turns, index) => this.#card(turns, index)));
    at("responses").style.setProperty("--columns", this.count === 3 ? 3 : 2);
    at("warnings").hidden = !this.covered;
    at("warning-list").replaceChildren(...task.warnings.map((words) => Object.assign(element("li", words), { dir: "auto" })));
    this.#drawScale();
    this.panel = new Panel(this);
    for (const one of page().querySelectorAll("kbd[data-key]")) {
      const { key } = one.dataset; // where a response has the letter, Shift makes it a key of the page
      one.textContent = !this.pair && LETTERS.indexOf(key) < this.count ? `⇧${key}` : key;
    }
    this.refresh();
    foldPrompt();
    page().scrollTo(0, 0);
    at("prompt").scrollTo(0, at("prompt").scrollHeight); // the last turn of a conversation is the one answered
  }

  uncover() {
    this.covered = false;
    this.refresh();
  }

  freeze() {
    this.frozen = true;
    this.panel.close();
  }

  // --- what is missing ---

  get complete() {
    return this.missing === null;
  }

  // The first thing that is missing: the name of something that a digit gives, or "rationale"; null: nothing.
  get missing() {
    const field = this.fields.find((name) => this.#value(name) === null);
    if (field) return field;
    return this.asks.rationale === "required" && !this.rating.rationale.trim() ? "rationale" : null;
  }

  // The names of what digits give, in the order in which it is asked for.
  get fields() {
    const { asks, task } = this;
    const verdict = this.pair ? ["scale"] : task.responses.map((_, index) => `rank-${index}`);
    if (this.#asksStrength) verdict.push("strength");
    return [...verdict, ...asks.dimensions.flatMap((_, one) => task.responses.map((_, index) => `rating-${one}-${index}`))];
  }

  // Whether the ranks given call for the strength.
  get #asksStrength() {
    const { ranks } = this.rating;
    return !this.pair && this.task.strength && !ranks.includes(null) && single(ranks);
  }

  #value(name) {
    const [kind, ...at] = name.split("-");
    if (kind === "rank") return this.rating.ranks[at[0]];
    if (kind === "rating") return this.rating.ratings[this.asks.dimensions[at[0]].name][at[1]];
    return this.rating[kind];
  }

  // What the next digit gives. Where nothing is missing it corrects what was given last, but no rank by accident.
  get current() {
    const { fields } = this;
    if (this.chosen && fields.includes(this.chosen)) return this.chosen;
    const missing = fields.find((name) => this.#value(name) === null);
    if (missing) return missing;
    if (fields.includes(this.last) && !this.last.startsWith("rank-")) return this.last;
    return this.pair ? "scale" : this.#asksStrength ? "strength" : null;
  }

  // The response that the rater is at.
  get response() {
    const [kind, ...at] = (this.current ?? "").split("-");
    return kind === "rank" || kind === "rating" ? Number(at.at(-1)) : 0;
  }

  get best() {
    return bestOf(this.task, this.rating);
  }

  // --- what changes it ---

  give(change) {
    if (this.frozen) return;
    change(this.rating);
    this.changed();
    this.refresh();
  }

  // Give the value of a name: a step of the scale, a rank (null takes it back), a rating.
  set(name, value) {
    const [kind, ...at] = name.split("-");
    this.give((rating) => {
      if (kind === "rank") rating.ranks[at[0]] = value;
      else if (kind === "rating") rating.ratings[this.asks.dimensions[at[0]].name][at[1]] = value;
      else rating[kind] = value;
      this.chosen = null;
      this.last = name;
    });
  }

  // A digit gives what is current. False where it can't.
  digit(number) {
    const name = this.current;
    const input = name && page().querySelectorAll(`input[name="${name}"]`)[number - 1];
    if (this.frozen || !input || input.matches(":disabled")) return false;
    input.checked = true;
    input.dispatchEvent(new Event("change"));
    this.#tell(name, input);
    return true;
  }

  // A letter goes to its response. False if there is none.
  letter(key) {
    const index = this.pair || key.length !== 1 ? -1 : LETTERS.indexOf(key.toUpperCase());
    if (index < 0 || index >= this.count) return false;
    this.chosen = `rank-${index}`;
    at("responses").children[index].scrollIntoView({ block: "nearest" });
    this.refresh();
    this.panel.follow();
    return true;
  }

  // Go back to what was given before.
  back() {
    const { fields, current } = this;
    const index = this.complete && this.chosen === null ? fields.length : fields.indexOf(current);
    this.chosen = fields[Math.max(0, index - 1)];
    this.refresh();
    announce(this.#hint()[0]);
  }

  // Submit was tried too early: show and say what is missing. A second Enter, meant for the item before, is passed over.
  point() {
    if (this.last === null && performance.now() - this.since < PAUSE) return;
    const [words, keys] = this.#hint();
    at("hint").classList.add("asked");
    announce(words + keys);
    if (this.missing === "rationale") this.panel.act("W");
    else this.panel.show();
  }

  refresh() {
    const { ranks, flags } = this.rating;
    const { best, current } = this;
    page().classList.toggle("covered", this.covered);
    at("scale").disabled = this.covered || (!this.pair && !this.#asksStrength);
    [...at("responses").children].forEach((box, index) => {
      const one = this.pair ? best.length === 1 && best[0] === index : best.includes(index) || ranks[index] === 1;
      box.classList.toggle("best", one);
      box.classList.toggle("current", current === `rank-${index}`);
      const rank = box.querySelector(`input[name="rank-${index}"][value="${ranks[index]}"]`);
      for (const one of box.querySelectorAll(".ranks input")) one.checked = one === rank;
    });
    const [words, keys] = this.covered ? [t("Read the warning first."), " " + t("Enter shows the responses.")] : this.#hint();
    at("hint").classList.remove("asked");
    at("hint").replaceChildren(words, element("span", keys, "keys"));
    at("submit").setAttribute("aria-disabled", this.covered || !this.complete);
    const flagged = flags.filter((flag) => flag !== ALL_BAD).length;
    at("flag-count").textContent = flagged ? ` (${flagged})` : "";
    at("flag-open").classList.toggle("on", flagged > 0);
    this.panel.refresh();
    at("responses").dispatchEvent(new Event("refreshed"));
  }

  // What the rater is at or what is missing, and how to give it by key (which narrow screens leave out).
  #hint() {
    const name = this.chosen && this.fields.includes(this.chosen) ? this.chosen : this.missing;
    const [kind, ...at] = (name ?? "").split("-");
    if (kind === "scale") {
      const keys = t("Keys 1 to {most} choose.", { most: this.task.strength ? 7 : 3 });
      return [t("Which one is better?"), " " + keys];
    }
    if (kind === "rank") {
      const facts = { most: Math.min(this.count, 9), letter: letter(at[0]) };
      return [t("Rank each response; 1 is best, ties are fine."), " " + t("Keys 1 to {most} rank {letter}, letters move.", facts)];
    }
    if (kind === "strength") {
      return [t("How much better is the best than the second?"), " " + t("Keys 1 to {most} choose.", { most: 3 })];
    }
    if (kind === "rating") {
      const { name: dimension, anchors } = this.asks.dimensions[at[0]];
      const keys = t("Keys 1 to {most} rate, Backspace goes back.", { most: anchors.length });
      return [t("Rate response {letter}: {dimension}.", { letter: letter(at[1]), dimension }), " " + keys];
    }
    if (kind === "rationale") {
      return [t("Say in a few words why."), " " + t("W opens the field.")];
    }
    if (this.task.revises !== null) return [t("You are changing this answer; until then it stands."), ""];
    if (this.rating.flags.includes(ALL_BAD)) return [t("All bad: none of the responses is good enough."), ""];
    return [this.pair ? "" : inWords(this.rating.ranks), ""];
  }

  // What a digit has given, for who can't see it, and what comes next.
  #tell(name, input) {
    const [kind, ...at] = name.split("-");
    const label = input.getAttribute("aria-label") ?? input.closest("label").lastChild.textContent;
    const what = kind === "rank" ? this.rankInWords(Number(at[0]))
      : kind === "rating" ? t("{letter}, {dimension}: {step}.", {
        letter: letter(at[1]), dimension: this.asks.dimensions[at[0]].name, step: label,
      })
      : `${label}.`;
    const next = this.complete ? t("Enter submits.") : this.#hint()[0];
    announce(`${what} ${next}`);
  }

  // "B: rank 2, tied with C."
  rankInWords(index) {
    const { ranks } = this.rating;
    const rank = ranks[index];
    const others = ranks.flatMap((value, other) => (value === rank && other !== index ? [letter(other)] : []));
    if (rank === null) return t("{letter}: no rank yet.", { letter: letter(index) });
    if (!others.length) return t("{letter}: rank {rank}.", { letter: letter(index), rank });
    return t("{letter}: rank {rank}, tied with {others}.", { letter: letter(index), rank, others: listed(others) });
  }

  // After practice: the right rank on each response.
  correct(ranks) {
    const tie = new Set(ranks).size === 1;
    [...at("responses").children].forEach((box, index) => {
      if (this.pair && !tie && ranks[index] > 1) return;
      const badge = element("span", tie ? t("same") : ranks[index] === 1 ? t("best") : String(ranks[index]), "right");
      badge.title = t("the right rank");
      box.querySelector(".letter").after(badge);
    });
  }

  // --- drawing ---

  #card(turns, index) {
    const box = element("section", "", "response");
    box.setAttribute("aria-label", t("Response {letter}", { letter: letter(index) }));
    const head = element("div", "", "head");
    head.append(element("span", letter(index), "letter"));
    if (!this.pair) {
      const options = this.task.responses.map((_, rank) => [rank + 1, String(rank + 1)]);
      const label = t("Rank of response {letter}, 1 is best", { letter: letter(index) });
      const ranks = this.radios(`rank-${index}`, options, this.rating.ranks[index], label);
      ranks.classList.add("ranks");
      head.append(ranks);
    }
    const text = element("div", "", "text");
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", t("Text of response {letter}", { letter: letter(index) }));
    drawTurns(text, turns, turns.length > 1);
    box.append(head, text);
    return box;
  }

  // Radio buttons that give the value of `name`.
  radios(name, options, value, label, keyed = false) {
    return radios(name, options, value, label, (option) => this.set(name, option), keyed);
  }

  #drawScale() {
    const box = at("scale");
    if (this.pair) {
      const steps = pairSteps(this.task.strength);
      const row = this.radios("scale", steps, this.rating.scale, t("Which response is better?"), true);
      row.classList.add("scale");
      box.replaceChildren(row);
    } else if (this.task.strength) {
      const row = element("div", "", "over");
      const label = t("How much better is the best than the second?");
      row.append(element("span", t("Best over second:")));
      row.append(this.radios("strength", strengthSteps(), this.rating.strength, label, true));
      box.replaceChildren(row);
    } else {
      box.replaceChildren();
    }
  }
}
