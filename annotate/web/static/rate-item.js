// An item and its rating: what is drawn, what is missing, what a key chooses. It knows nothing of the server.
//
// The HTML of prompts and responses was cleaned on the server (annotate/api/render.py); all else goes in as text.

import { at, element, page, radios } from "./rate-dom.js";
import { drawTurns, foldPrompt } from "./rate-read.js";

export const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
export const FLAGS = [
  ["unsafe", "Unsafe or harmful"], ["broken", "Broken: cut off, empty or garbled"],
  ["pii", "Contains personal data"], ["cannot-judge", "I can't judge this"],
];
const SCALE = [
  [-3, "A much better"], [-2, "A clearly"], [-1, "A slightly"], [0, "Same"],
  [1, "B slightly"], [2, "B clearly"], [3, "B much better"],
];
const PLAIN_SCALE = [[-1, "A better"], [0, "Same"], [1, "B better"]];
const STRENGTH = [[1, "slightly better"], [2, "clearly better"], [3, "much better"]];
const letter = (index) => LETTERS[index] ?? String(index + 1);

// --- the rating: {scale, ranks, strength, flags, seconds}, null where nothing is given yet ---

export function freshRating(task) {
  return { scale: null, ranks: task.responses.map(() => null), strength: null, flags: [], seconds: 0 };
}

// The rating that an answer of before came from, to be changed.
export function ratingOf(task) {
  const { ranks, strength, flags } = task.given;
  const side = Math.sign(ranks[0] - ranks[1]);
  const scale = task.responses.length !== 2 ? null : !task.strength ? side : side ? strength : 0;
  return { ...freshRating(task), scale, ranks: [...ranks], strength, flags: [...flags] };
}

// What of a rating goes into an answer. What the page does not ask for, a changed answer keeps.
export function answerOf(task, { scale, ranks, strength, flags, seconds }) {
  const { ratings = null, rationale = null, edited = null } = task.given ?? {};
  const pair = task.responses.length === 2;
  return {
    assignment: task.assignment,
    ranks: pair ? (scale < 0 ? [1, 2] : scale > 0 ? [2, 1] : [1, 1]) : ranks,
    strength: !task.strength ? null : pair ? scale : single(ranks) ? strength : 0,
    flags,
    seconds: Math.round(seconds * 10) / 10,
    ...(task.given ? { revises: task.revises, ratings, rationale, edited } : {}),
  };
}

const single = (ranks) => ranks.filter((rank) => rank === 1).length === 1;

export function inWords(ranks) {
  const groups = [...new Set(ranks)].sort((one, other) => one - other).map((rank) =>
    ranks.flatMap((value, index) => (value === rank ? [letter(index)] : [])).join(" and "),
  );
  return groups.length === 1 ? `${groups[0]} are the same` : groups.join(", then ");
}

// --- one item on the screen ---

export class Item {
  constructor(task, rating, changed) {
    Object.assign(this, { task, rating, changed });
    this.count = task.responses.length;
    this.pair = this.count === 2;
    this.current = rating.ranks.indexOf(null); // the response that a digit ranks; -1 when all have a rank
    this.covered = task.warnings.length > 0;
  }

  draw() {
    const { task } = this;
    drawTurns(at("prompt"), task.prompt, task.prompt.length > 1);
    at("prompt-box").classList.remove("unfolded");
    at("responses").replaceChildren(...task.responses.map((turns, index) => this.#card(turns, index)));
    at("responses").style.setProperty("--columns", this.count === 3 ? 3 : 2);
    at("warnings").hidden = !this.covered;
    at("warning-list").replaceChildren(...task.warnings.map((words) => element("li", words)));
    this.#drawScale();
    this.refresh();
    foldPrompt();
    page().scrollTo(0, 0);
    at("prompt").scrollTo(0, at("prompt").scrollHeight); // the last turn of a conversation is the one answered
  }

  uncover() {
    this.covered = false;
    this.refresh();
  }

  get complete() {
    if (this.pair) return this.rating.scale !== null;
    return this.#ranked && this.rating.ranks.includes(1) && (!this.#asks || this.rating.strength !== null);
  }

  get #ranked() {
    return this.rating.ranks.every((rank) => rank !== null);
  }

  // Whether the ranks given call for the strength.
  get #asks() {
    return !this.pair && this.task.strength && this.#ranked && single(this.rating.ranks);
  }

  refresh() {
    const { scale, ranks, flags } = this.rating;
    page().classList.toggle("covered", this.covered);
    at("scale").disabled = this.covered || (!this.pair && this.task.strength && !this.#asks);
    [...at("responses").children].forEach((box, index) => {
      const best = this.pair ? scale !== null && (index === 0 ? scale < 0 : scale > 0) : ranks[index] === 1;
      box.classList.toggle("best", best);
      box.classList.toggle("current", !this.pair && index === this.current && !this.complete);
    });
    const [words, keys] = this.covered ? ["Read the warning first.", " Enter shows the responses."] : this.#hint();
    at("hint").replaceChildren(words, element("span", keys, "keys"));
    at("submit").setAttribute("aria-disabled", this.covered || !this.complete);
    at("flag-count").textContent = flags.length ? ` (${flags.length})` : "";
    at("flag-open").classList.toggle("on", flags.length > 0);
  }

  // What is still missing, and how to give it by key (which narrow screens leave out).
  #hint() {
    if (this.complete) return [this.task.revises === null ? "" : "You are changing this answer; until then it stands.", ""];
    if (this.pair) {
      return ["Which one is better?", ` Keys 1 to ${this.task.strength ? 7 : 3} choose.`];
    }
    if (!this.#ranked) {
      const keys = ` Keys 1 to ${Math.min(this.count, 9)} rank ${letter(this.current)}, letters move.`;
      return ["Rank each response; 1 is best, ties are fine.", keys];
    }
    if (!this.rating.ranks.includes(1)) return ["At least one response must have rank 1.", ""];
    return ["How much better is the best than the second?", " Keys 1 to 3 choose."];
  }

  // A digit chooses a step of the scale, or the rank of the current response, then the strength.
  digit(number) {
    const name = this.pair ? "scale" : this.#asks && this.current === -1 ? "strength" : `rank-${this.current}`;
    const input = page().querySelectorAll(`input[name="${name}"]`)[number - 1];
    if (!input || input.matches(":disabled")) return;
    input.checked = true;
    input.dispatchEvent(new Event("change"));
  }

  // A letter goes to its response. False if there is none.
  letter(key) {
    const index = this.pair || key.length !== 1 ? -1 : LETTERS.indexOf(key.toUpperCase());
    if (index < 0 || index >= this.count) return false;
    this.current = index;
    at("responses").children[index].scrollIntoView({ block: "nearest" });
    this.refresh();
    return true;
  }

  // After practice: the right rank on each response.
  correct(ranks) {
    const tie = new Set(ranks).size === 1;
    [...at("responses").children].forEach((box, index) => {
      if (this.pair && !tie && ranks[index] > 1) return;
      const badge = element("span", tie ? "same" : ranks[index] === 1 ? "best" : String(ranks[index]), "right");
      badge.title = "the right rank";
      box.querySelector(".letter").after(badge);
    });
  }

  #give(change) {
    change(this.rating);
    this.changed();
    this.refresh();
  }

  #card(turns, index) {
    const box = element("section", "", "response");
    box.setAttribute("aria-label", `Response ${letter(index)}`);
    const head = element("div", "", "head");
    head.append(element("span", letter(index), "letter"));
    if (!this.pair) {
      const options = this.task.responses.map((_, rank) => [rank + 1, String(rank + 1)]);
      const label = `Rank of response ${letter(index)}, 1 is best`;
      const ranks = radios(`rank-${index}`, options, this.rating.ranks[index], label, (rank) =>
        this.#give((rating) => {
          rating.ranks[index] = rank;
          this.current = rating.ranks.indexOf(null);
        }),
      );
      ranks.classList.add("ranks");
      head.append(ranks);
    }
    const text = element("div", "", "text");
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", `Text of response ${letter(index)}`);
    drawTurns(text, turns, turns.length > 1);
    box.append(head, text);
    return box;
  }

  #drawScale() {
    if (this.pair) {
      const steps = this.task.strength ? SCALE : PLAIN_SCALE;
      const row = radios("scale", steps, this.rating.scale, "Which response is better?", (value) =>
        this.#give((rating) => (rating.scale = value)), true);
      row.classList.add("scale");
      at("scale").replaceChildren(row);
    } else if (this.task.strength) {
      const label = "How much better is the best than the second?";
      const row = element("div", "", "over");
      row.append(element("span", "Best over second:"));
      row.append(radios("strength", STRENGTH, this.rating.strength, label, (value) =>
        this.#give((rating) => (rating.strength = value)), true));
      at("scale").replaceChildren(row);
    } else {
      at("scale").replaceChildren();
    }
  }
}
