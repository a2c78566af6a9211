// Marking passages of responses as good or bad: selected by mouse, by touch, or word by word with keys. A mark is
// {response, start, end, text, mark}; start and end count Unicode characters of the response's visible text, which is the
// text of its `.body`s, one after the other.

import { announce, at, element, page } from "../dom.js";
import { keyOf } from "./keys.js";
import { paint, rangeOf, unitsBefore, visible } from "./places.js";
import { letter } from "./rating.js";
import { t } from "../words.js";

const PAUSE = 200; // ms that a selection stays as it is before it can be marked
let listening = null; // to the page, for the item on the screen

export const listenNoMore = () => listening?.abort();

export class Marks {
  constructor(item) {
    this.item = item;
    this.chosen = null; // {response, from, to}: what is selected, in UTF-16 units of the visible text
    this.lastAt = null; // where keys begin next time
    this.bar = this.#bar();
    page().querySelector(".marker")?.remove();
    page().append(this.bar);
    listenNoMore();
    listening = new AbortController();
    const options = { signal: listening.signal };
    document.addEventListener("selectionchange", () => this.#later(), options);
    document.addEventListener("pointerdown", (event) => this.#pressed(event), options);
    document.addEventListener("pointerup", () => ((this.down = false), this.#later()), options);
    addEventListener("scroll", () => this.#place(), { ...options, capture: true, passive: true });
    addEventListener("resize", () => this.#place(), options);
  }

  // Choose by keys: what is selected, else a word where the rater is.
  begin() {
    this.#look();
    if (!this.chosen) {
      const response = this.#here();
      const words = this.#segments(response, "word");
      const start = this.lastAt?.response === response ? this.lastAt.to : 0;
      const word = words.find(({ from }) => from >= start) ?? words[0];
      if (!word) return announce(t("There is nothing to mark."));
      this.#choose({ response, ...word });
    }
    this.#show();
    this.bar.querySelector("button").focus();
    this.#read();
  }

  leave() {
    clearTimeout(this.timer);
    this.chosen = null;
    this.bar.hidden = true;
    this.#paint();
  }

  refresh() {
    const { spans } = this.item.rating;
    at("marks-tip").hidden = spans.length > 0;
    at("mark-list").replaceChildren(...[...spans].sort(byPlace).map((span) => this.#line(span)));
    this.#paint();
  }

  // --- what is selected ---

  #pressed(event) {
    if (this.bar.contains(event.target)) return;
    this.down = true;
    if (!event.target.closest(".response .text")) this.#hide();
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.down || this.item.frozen || this.bar.contains(document.activeElement)) return;
      if (this.#look()) this.#show();
      else this.#hide();
    }, PAUSE);
  }

  // What is selected within one response, if anything; spaces at its ends left out.
  #look() {
    const selection = getSelection();
    this.chosen = null;
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    const text = [range.startContainer, range.endContainer]
      .map((node) => (node instanceof Element ? node : node.parentElement)?.closest("#responses .response .text"))
      .find(Boolean);
    if (!text) return null;
    const response = [...at("responses").children].indexOf(text.closest(".response"));
    const whole = visible(text);
    let from = unitsBefore(text, range.startContainer, range.startOffset);
    let to = unitsBefore(text, range.endContainer, range.endOffset);
    while (from < to && /\s/.test(whole[from])) from++;
    while (from < to && /\s/.test(whole[to - 1])) to--;
    if (from < to) this.chosen = { response, from, to };
    return this.chosen;
  }

  #choose(chosen) {
    this.chosen = chosen;
    const range = rangeOf(this.#text(chosen.response), chosen.from, chosen.to);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    (range.startContainer.parentElement ?? range.startContainer).scrollIntoView({ block: "nearest" });
    this.#paint();
  }

  #text(response) {
    return at("responses").children[response].querySelector(".text");
  }

  // The response that the rater is at: that of the focus, else that of the answer's next digit.
  #here() {
    const focused = document.activeElement?.closest("#responses .response");
    return focused ? [...at("responses").children].indexOf(focused) : (this.lastAt?.response ?? this.item.response);
  }

  // --- the bar ---

  #bar() {
    const bar = element("div", "", "marker");
    bar.hidden = true;
    bar.setAttribute("role", "toolbar");
    bar.setAttribute("aria-label", t("Mark what is selected"));
    const button = (words, key, act, className) => {
      const made = element("button", words, className);
      made.type = "button";
      made.append(" ", element("kbd", key));
      made.addEventListener("click", act);
      bar.append(made);
    };
    button(t("Good"), "G", () => this.#mark("good"), "good");
    button(t("Bad"), "B", () => this.#mark("bad"), "bad");
    button(t("Remove"), "Del", () => this.#remove(), "none");
    bar.append(element("span", t("Arrows choose words, Shift makes it longer, digits change the response."), "keys"));
    bar.addEventListener("pointerdown", (event) => event.preventDefault()); // the selection stays
    bar.addEventListener("keydown", (event) => this.#keydown(event));
    return bar;
  }

  #show() {
    this.bar.hidden = false;
    this.bar.querySelector(".none").hidden = !this.#touching().length;
    this.#place();
  }

  #hide() {
    if (this.bar.contains(document.activeElement)) return;
    this.chosen = null;
    this.bar.hidden = true;
  }

  // Below what is selected, where a phone's own menu is not; above it where there is no room.
  #place() {
    if (this.bar.hidden || !this.chosen) return;
    const { response, from, to } = this.chosen;
    const place = rangeOf(this.#text(response), from, to).getBoundingClientRect();
    const { width, height } = this.bar.getBoundingClientRect();
    const below = place.bottom + 10 + height < innerHeight ? place.bottom + 10 : Math.max(4, place.top - height - 10);
    this.bar.style.top = `${Math.min(below, innerHeight - height - 4)}px`;
    this.bar.style.left = `${Math.max(4, Math.min(place.left, innerWidth - width - 4))}px`;
  }

  #keydown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.chosen) return;
    const key = keyOf(event);
    const rtl = getComputedStyle(this.#text(this.chosen.response).querySelector(".body")).direction === "rtl";
    const move = {
      ArrowLeft: ["word", rtl ? 1 : -1], ArrowRight: ["word", rtl ? -1 : 1], ArrowUp: ["sentence", -1], ArrowDown: ["sentence", 1],
    }[key];
    if (move) this.#move(...move, event.shiftKey);
    else if (key === "G") this.#mark("good");
    else if (key === "B") this.#mark("bad");
    else if (key === "Delete" || key === "Backspace") this.#remove();
    else if (key === "Escape") this.#back();
    else if (/^[1-9]$/.test(key) && Number(key) <= this.item.count) this.#goTo(Number(key) - 1, 0);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // To the next or the last word or sentence, which may be in the next response; or, to lengthen, as far as that.
  #move(unit, step, longer) {
    const { response, from, to } = this.chosen;
    const all = this.#segments(response, unit);
    const last = all.findLastIndex((one) => one.from < to);
    if (longer) {
      const end = step > 0 ? all.find((one) => one.to > to) : all[last - (all[last].to > to ? 0 : 1)];
      if (end && end.to > from) this.#choose({ response, from, to: end.to });
    } else {
      const next = step > 0 ? all.find((one) => one.from >= to) : all.findLast((one) => one.to <= from);
      if (next) this.#choose({ response, ...this.#firstWord(response, next) });
      else if (this.item.task.responses[response + step]) return this.#goTo(response + step, step > 0 ? 0 : -1);
    }
    this.#show();
    this.#read();
  }

  #goTo(response, which) {
    const word = this.#segments(response, "word").at(which);
    if (!word) return;
    this.#choose({ response, ...word });
    this.#show();
    this.#read();
  }

  #firstWord(response, segment) {
    return this.#segments(response, "word").find((word) => word.to > segment.from) ?? segment;
  }

  // The words or sentences of a response: [{from, to}], spaces at their ends left out.
  #segments(response, granularity) {
    const text = visible(this.#text(response));
    const found = [...new Intl.Segmenter(undefined, { granularity }).segment(text)];
    return found.filter(({ segment, isWordLike }) => isWordLike ?? segment.trim()).map(({ segment, index }) => {
      const lead = segment.length - segment.trimStart().length;
      return { from: index + lead, to: index + segment.trimEnd().length };
    });
  }

  #read() {
    const { response, from, to } = this.chosen;
    const text = visible(this.#text(response)).slice(from, to);
    announce(t("{letter}: “{text}”", { letter: letter(response), text }));
  }

  #back() {
    this.lastAt = this.chosen;
    getSelection().removeAllRanges();
    this.leave();
    at("submit").focus();
  }

  // --- marks ---

  #span(mark) {
    const { response, from, to } = this.chosen;
    const text = visible(this.#text(response));
    const start = [...text.slice(0, from)].length;
    const quoted = [...text.slice(from, to)];
    return { response, start, end: start + quoted.length, text: quoted.join(""), mark };
  }

  // Marks that what is selected lies over.
  #touching(mark = null) {
    const { response, start, end } = this.#span(mark);
    return this.item.rating.spans.filter((one) =>
      one.response === response && one.start < end && start < one.end && (mark === null || one.mark === mark));
  }

  // Marks of one kind that overlap become one.
  #mark(mark) {
    const gone = this.#touching(mark);
    const { response, ...span } = this.#span(mark);
    const start = Math.min(span.start, ...gone.map((one) => one.start));
    const end = Math.max(span.end, ...gone.map((one) => one.end));
    const text = [...visible(this.#text(response))].slice(start, end).join("");
    this.#change(gone, [{ response, start, end, text, mark }]);
    announce(mark === "good" ? t("Marked as good: “{text}”", { text }) : t("Marked as bad: “{text}”", { text }));
  }

  #remove() {
    const gone = this.#touching();
    if (!gone.length) return;
    this.#change(gone, []);
    announce(t("The mark is removed."));
  }

  #change(gone, added) {
    const byKey = this.bar.contains(document.activeElement);
    this.item.give((rating) => (rating.spans = [...rating.spans.filter((one) => !gone.includes(one)), ...added]));
    if (byKey) return this.#back();
    getSelection().removeAllRanges();
    this.leave();
  }

  #line(span) {
    const line = element("li", "", span.mark);
    const label = span.mark === "good" ? t("Good") : t("Bad");
    const quote = element("q", span.text.length > 120 ? `${span.text.slice(0, 120)}…` : span.text);
    quote.dir = "auto";
    const remove = element("button", "×", "bare");
    remove.type = "button";
    remove.setAttribute("aria-label", t("Remove the mark “{text}”", { text: quote.textContent }));
    remove.addEventListener("click", () => {
      this.item.give((rating) => (rating.spans = rating.spans.filter((one) => one !== span)));
      announce(t("The mark is removed."));
      (at("mark-list").querySelector("button") ?? at("submit")).focus();
    });
    line.append(element("b", label), element("span", letter(span.response), "letter"), quote, remove);
    return line;
  }

  #paint() {
    const passages = this.item.rating.spans.map((span) => {
      const units = [...visible(this.#text(span.response))];
      const from = units.slice(0, span.start).join("").length;
      return { kind: span.mark, text: this.#text(span.response), from, to: from + span.text.length };
    });
    const { chosen } = this;
    if (chosen) passages.push({ ...chosen, kind: "chosen", text: this.#text(chosen.response) });
    paint(at("responses"), passages);
  }
}

const byPlace = (one, other) => one.response - other.response || one.start - other.start;
