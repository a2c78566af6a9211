// What a project may ask for beside the ranking: "all bad", ratings on dimensions, a rationale; and the panel at the
// side that holds them, the board, the rewrite and the marks. What a project does not ask for is not there.

import { Board } from "./board.js";
import { announce, at, element, leaves } from "../dom.js";
import { Rewrite } from "./edit.js";
import { store } from "./outbox.js";
import { ALL_BAD, letter } from "./rating.js";
import { Marks, listenNoMore } from "./spans.js";
import { t } from "../words.js";

const narrow = matchMedia("(max-width: 760px)"); // there the panel stands in the page, and is always open

export class Panel {
  constructor(item) {
    this.item = item;
    const { asks, pair } = item;
    this.board = pair ? null : new Board(item);
    this.ratings = asks.dimensions.length ? new Ratings(item) : null;
    this.rationale = asks.rationale === "off" ? null : new Rationale(item);
    this.rewrite = asks.edit ? new Rewrite(item) : null;
    this.marks = asks.spans ? new Marks(item) : null;
    this.asked = [this.ratings, this.rationale, this.rewrite, this.marks].filter(Boolean);
    const required = this.ratings !== null || asks.rationale === "required";
    this.open = remembered("panel") ?? required;
    this.boardOpen = remembered("board") ?? false;
    if (!asks.spans) listenNoMore();
    at("panel").inert = false;
    at("responses").classList.remove("rewriting");
    for (const [id, key] of [["all-bad", "X"], ["board-open", "K"], ["board-fold", "K"], ["panel-open", "P"]]) {
      at(id).onclick = (event) => {
        this.act(key);
        if (event.detail && document.activeElement === at(id)) at(id).blur(); // clicked: Enter means submit again
      };
    }
    narrow.onchange = () => this.refresh();
  }

  // Its item is submitted.
  close() {
    this.rewrite?.end();
    this.marks?.leave();
    at("panel").inert = true;
  }

  // What a letter key does; nothing if the project does not ask for it.
  act(key) {
    const { item } = this;
    if (item.covered || item.frozen) return;
    if (key === "X" && item.asks.all_bad) this.#toggleAllBad();
    else if (key === "K" && this.board) this.#toggleBoard();
    else if (key === "P" && this.asked.length) this.#toggle();
    else if (key === "W" && this.rationale) this.show(), this.rationale.begin();
    else if (key === "E" && this.rewrite) this.rewrite.begin();
    else if (key === "M" && this.marks) this.marks.begin();
    else if (key === "Backspace") item.back();
  }

  // Open it for what is missing.
  show() {
    if (this.asked.length && !this.open) this.#toggle();
    this.ratings?.follow();
  }

  // The rater has gone to another response by its letter.
  follow() {
    this.board?.follow();
  }

  refresh() {
    const { item } = this;
    const open = (this.open || narrow.matches) && this.asked.length > 0;
    const board = this.board !== null && this.boardOpen;
    const foldedBoard = this.board !== null && narrow.matches; // on a phone its button is here, and not in the last line
    at("panel").hidden = item.covered || !(open || board || foldedBoard);
    at("board").hidden = !board && !foldedBoard;
    at("board-body").hidden = !board;
    at("board-fold").textContent = board ? "−" : "+";
    at("board-fold").setAttribute("aria-expanded", board);
    const parts = { ratings: this.ratings, why: this.rationale, rewrite: this.rewrite, marks: this.marks };
    for (const [id, part] of Object.entries(parts)) at(id).hidden = !part || !open;
    for (const part of [this.board, ...this.asked]) part?.refresh();

    const bad = item.rating.flags.includes(ALL_BAD);
    at("all-bad").hidden = !item.asks.all_bad;
    at("all-bad").setAttribute("aria-pressed", bad);
    at("all-bad").classList.toggle("on", bad);
    at("board-open").hidden = !this.board;
    at("board-open").setAttribute("aria-expanded", board);
    at("board-open").classList.toggle("open", board);
    at("panel-open").hidden = !this.asked.length;
    at("panel-open").setAttribute("aria-expanded", open);
    at("panel-open").classList.toggle("open", open);
    const { rationale, edited, spans } = item.rating;
    const given = (this.rationale && rationale.trim() ? 1 : 0) + (this.rewrite && edited ? 1 : 0) + (this.marks ? spans.length : 0);
    at("panel-count").textContent = given && !open ? ` (${given})` : "";
  }

  #toggleAllBad() {
    this.item.give((rating) => {
      const others = rating.flags.filter((flag) => flag !== ALL_BAD);
      rating.flags = rating.flags.includes(ALL_BAD) ? others : [...others, ALL_BAD];
    });
    const bad = this.item.rating.flags.includes(ALL_BAD);
    announce(bad ? t("All bad: none of the responses is good enough.") : t("No longer all bad."));
  }

  #toggleBoard() {
    this.boardOpen = !this.boardOpen;
    store("concord:board", String(this.boardOpen));
    this.refresh();
    if (this.boardOpen) this.board.begin();
  }

  #toggle() {
    this.open = !this.open;
    store("concord:panel", String(this.open));
    this.refresh();
    this.ratings?.follow();
  }
}

// Whether the rater left it open (true) or closed (false); null if they never touched it.
function remembered(name) {
  try {
    return JSON.parse(localStorage.getItem(`concord:${name}`));
  } catch {
    return null;
  }
}

// --- ratings: a row of steps for each response on each dimension. Names and anchors are the owner's words. ---

class Ratings {
  constructor(item) {
    this.item = item;
    at("dimensions").replaceChildren(...item.asks.dimensions.map((dimension, number) => this.#dimension(dimension, number)));
  }

  refresh() {
    const { ratings } = this.item.rating;
    const given = Object.values(ratings).flat().filter((step) => step !== null).length;
    const all = this.item.asks.dimensions.length * this.item.count;
    at("ratings-title").textContent = t("Ratings: {given} of {all}", { given, all });
    const { current } = this.item;
    for (const row of this.#rows()) row.classList.toggle("current", row.dataset.field === current);
    this.follow();
  }

  // Keep the row that a digit gives in view.
  follow() {
    this.#rows().find((row) => row.classList.contains("current"))?.scrollIntoView({ block: "nearest" });
  }

  #rows() {
    return [...at("dimensions").querySelectorAll(".rate")];
  }

  #dimension({ name, anchors }, number) {
    const { item } = this;
    const box = element("div", "", "dimension");
    const title = element("h4");
    title.append(element("bdi", name));
    const steps = element("ol", "", "anchors");
    anchors.forEach((words, index) => {
      if (!words) return;
      const line = element("li");
      line.append(element("b", String(index + 1)), " ", element("bdi", words));
      steps.append(line);
    });
    box.append(title, steps);
    const options = anchors.map((_, index) => [index + 1, String(index + 1)]);
    item.task.responses.forEach((_, index) => {
      const field = `rating-${number}-${index}`;
      const row = element("div", "", "rate");
      row.dataset.field = field;
      const label = t("Response {letter}: {dimension}", { letter: letter(index), dimension: name });
      const choice = item.radios(field, options, item.rating.ratings[name][index], label);
      choice.querySelectorAll("input").forEach((input, step) => {
        const words = anchors[step];
        input.setAttribute("aria-label", words ? t("{step}, {anchor}", { step: step + 1, anchor: words }) : String(step + 1));
        if (words) input.title = words;
      });
      row.append(element("span", letter(index), "letter"), choice);
      box.append(row);
    });
    return box;
  }
}

// --- rationale ---

class Rationale {
  constructor(item) {
    this.item = item;
    const field = at("rationale");
    const required = item.asks.rationale === "required";
    at("rationale-label").textContent = required ? t("Why? (required)") : t("Why? (if you like)");
    field.required = required;
    field.value = item.rating.rationale;
    field.oninput = () => item.give((rating) => (rating.rationale = field.value));
    field.onkeydown = (event) => {
      if (leaves(event)) at("submit").focus();
    };
  }

  begin() {
    at("rationale").focus();
    at("why").scrollIntoView({ block: "nearest" });
  }

  refresh() {}
}
