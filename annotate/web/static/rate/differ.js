// What differs between texts, word by word: marked in each of them, and counted. Also what can't be seen: spaces of
// another kind, characters without a shape. Marks are CSS highlights, so that the cleaned HTML stays as it is; signs for
// what can't be seen are empty elements, which add nothing to the text.

import { common } from "./diff.js";
import { announce, at, element } from "../dom.js";
import { t } from "../words.js";

const LONGEST = 100000; // characters of a text that are compared
const IGNORABLE = /[\p{Default_Ignorable_Code_Point}\p{Cf}]/gu;
// Words; signs of scripts without spaces, and all else, are words of their own.
const WORD = /[[\p{L}\p{M}\p{N}_\p{Cf}]--[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Khmer}\p{sc=Lao}]]+|\S/gv;
const BLOCK = "p, li, h1, h2, h3, h4, h5, h6, pre, blockquote, th, td, tr, summary, .turn";
const HOLDERS = ":is(ul, ol, dl, table, thead, tbody, tr, blockquote, li, .body)"; // white space right in them is not shown
const PARAGRAPH = "\u2029"; // between two blocks
const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\u00a0": "NBSP" };

export const canMark = () => "highlights" in CSS;

// --- texts as lists of words ---

class Text {
  constructor(box) {
    this.pieces = []; // {node, at, exact}
    this.text = "";
    let block = null;
    const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest(".body") ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_SKIP);
    while (walker.nextNode() && this.text.length < LONGEST) {
      const node = walker.currentNode;
      const parent = node.parentElement;
      if (!node.data.trim() && parent.matches(HOLDERS)) continue;
      const within = parent.closest(BLOCK);
      if (block !== null && within !== block) this.text += PARAGRAPH;
      block = within;
      this.pieces.push({ node, at: this.text.length, exact: parent.closest("pre") !== null });
      this.text += node.data;
    }
    this.cut = this.text.length >= LONGEST;
    this.words = []; // {from, to, raw, plain}
    for (const { index, 0: raw } of this.text.matchAll(WORD)) {
      const plain = raw.replace(IGNORABLE, "");
      if (plain) this.words.push({ from: index, to: index + raw.length, raw, plain });
    }
  }

  #piece(offset) {
    let [low, high] = [0, this.pieces.length - 1];
    while (low < high) {
      const half = (low + high + 1) >> 1;
      if (this.pieces[half].at <= offset) low = half;
      else high = half - 1;
    }
    return this.pieces[low];
  }

  // What stands before a word, as far as it matters: outside of code any white space is one space.
  gap(number) {
    const from = number ? this.words[number - 1].to : 0;
    const { from: to } = this.words[number];
    const gap = this.text.slice(from, to);
    if (this.#piece(from).exact && this.#piece(to).exact) return gap;
    return gap.replace(/[ \t\n\r\f\u2029]+/g, " "); // where a paragraph ends can be seen
  }

  // The characters from..to as ranges of the document, one for each text node.
  ranges(from, to) {
    const ranges = [];
    for (let index = this.pieces.indexOf(this.#piece(from)); index < this.pieces.length; index++) {
      const { node, at } = this.pieces[index];
      if (at >= to) break;
      const range = document.createRange();
      range.setStart(node, Math.max(0, Math.min(node.length, from - at)));
      range.setEnd(node, Math.max(0, Math.min(node.length, to - at)));
      if (!range.collapsed) ranges.push(range);
    }
    return ranges;
  }

  place(offset) {
    const { node, at } = this.#piece(offset);
    return { node, offset: Math.min(node.length, Math.max(0, offset - at)) };
  }
}

// --- what differs between two of them ---

// {one, other}: for each text the words that the other lacks (as a set of numbers) and what can't be seen ({number, sign}).
function compare(one, other) {
  const pairs = common(one.words.map((word) => word.plain), other.words.map((word) => word.plain));
  const lacks = (text, side) => {
    const rest = new Set(text.words.keys());
    for (const pair of pairs) rest.delete(pair[side]);
    return rest;
  };
  const unseen = { one: [], other: [] };
  let before = [-1, -1];
  for (const pair of pairs) {
    const [i, j] = pair;
    const [left, right] = [one.words[i].raw, other.words[j].raw];
    if (left !== right) sign(unseen, i, j, hidden(left), hidden(right));
    if (i > 0 && j > 0 && before[0] === i - 1 && before[1] === j - 1) {
      const [gapOne, gapOther] = [one.gap(i), other.gap(j)];
      if (gapOne !== gapOther) sign(unseen, i, j, spelled(gapOne), spelled(gapOther));
    }
    before = pair;
  }
  return { one: lacks(one, 0), other: lacks(other, 1), unseen };
}

function sign(unseen, i, j, left, right) {
  unseen.one.push({ number: i, sign: left || "∅" });
  unseen.other.push({ number: j, sign: right || "∅" });
}

const hidden = (word) => (word.match(IGNORABLE) ?? []).map(code).join(" ");
const spelled = (gap) => [...gap].map((one) => SIGNS[one] ?? code(one)).join("");
const code = (one) => `U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

// Words in a row as one stretch, with the spaces between them.
function stretches(text, numbers) {
  const ranges = [];
  const sorted = [...numbers].sort((a, b) => a - b);
  for (let index = 0; index < sorted.length; index++) {
    const first = sorted[index];
    while (sorted[index + 1] === sorted[index] + 1) index++;
    ranges.push(...text.ranges(text.words[first].from, text.words[sorted[index]].to));
  }
  return ranges;
}

// --- marks ---

function mark(name, ranges) {
  if (ranges.length) CSS.highlights.set(name, new Highlight(...ranges));
  else CSS.highlights.delete(name);
}

// Signs where something can't be seen, from the end on, so that places stay right.
function putSigns(text, signs) {
  const places = signs.map(({ number, sign }) => ({ sign, ...text.place(text.words[number].from) }));
  for (const { node, offset, sign } of places.reverse()) {
    const made = element("i", "", "cannot-see");
    made.dataset.sign = sign;
    made.setAttribute("aria-hidden", "true");
    const range = document.createRange();
    range.setStart(node, offset);
    range.insertNode(made);
  }
}

// Mark in `box` what it has more than `before`, and say which passages of `before` it lacks.
export function markNews(box, before) {
  if (!canMark()) return [];
  const [one, other] = [new Text(before), new Text(box)];
  const found = compare(one, other);
  mark("differs-news", stretches(other, found.other));
  return stretches(one, found.one).map(String);
}

// --- the view of an item's responses ---

let on = false;
let item = null;
let drawnFor = null; // which response the others were compared with

export function setUpDiffers() {
  at("differs").addEventListener("click", toggleDiffers);
  at("responses").addEventListener("refreshed", () => on && reference() !== drawnFor && draw());
}

export function toggleDiffers() {
  if (!item || item.covered) return;
  if (!canMark()) return announce(t("This browser can't mark what differs; a newer one can."));
  on = !on;
  if (on) draw();
  else clear();
}

export function redrawDiffers(shown) {
  if (on || item) clear();
  item = shown;
  if (on && !item.covered) draw();
}

// Of a pair the first; else the response that the rater is at, or the best one.
function reference() {
  if (item.pair) return 0;
  const at = /^rank-(\d+)$/.exec(item.current ?? "");
  return at ? Number(at[1]) : Math.max(0, item.rating.ranks.indexOf(Math.min(...item.rating.ranks.filter(Boolean))));
}

function clear() {
  for (const name of ["differs-one", "differs-other"]) CSS.highlights?.delete(name);
  const signs = at("responses").querySelectorAll(".cannot-see");
  const bodies = new Set([...signs].map((one) => one.closest(".body")));
  for (const one of signs) one.remove();
  for (const body of bodies) body.normalize();
  at("differs").setAttribute("aria-pressed", on);
  at("differs-said").replaceChildren();
}

function draw() {
  clear();
  const cards = [...at("responses").children];
  const texts = cards.map((card) => new Text(card));
  const first = (drawnFor = reference());
  const others = texts.map((_, index) => index).filter((index) => index !== first);
  const found = others.map((index) => compare(texts[first], texts[index]));
  const only = [...found[0].one].filter((number) => found.every((one) => one.one.has(number))); // in no other one
  mark("differs-one", stretches(texts[first], only));
  mark("differs-other", others.flatMap((index, place) => stretches(texts[index], found[place].other)));
  const unseen = found.reduce((sum, one) => sum + one.unseen.one.length, 0);
  if (item.pair) putSigns(texts[first], found[0].unseen.one);
  others.forEach((index, place) => putSigns(texts[index], found[place].unseen.other));
  const letter = (index) => cards[index].querySelector(".letter").textContent;
  const counts = [[first, only.length, "one"], ...others.map((index, place) => [index, found[place].other.size, "other"])];
  say(counts.map(([index, count, kind]) => ({ letter: letter(index), count, kind })), letter(first), unseen, texts.some((text) => text.cut));
}

function say(counts, first, unseen, cut) {
  const parts = [];
  const words = counts.some(({ count }) => count);
  const add = (text, className = "") => parts.push(element("span", text, className), " ");
  if (!words) add(unseen ? t("The words are the same.") : t("The texts are the same."));
  else if (!item.pair) add(t("Compared with {letter}:", { letter: first }));
  if (words) for (const { letter, count, kind } of counts) add(t("Only in {letter}: {count}", { letter, count }), `only ${kind}`);
  if (unseen) add(t("Differences that can't be seen: {count}", { count: unseen }), "only cannot");
  if (cut) add(t("Only the beginning of these long texts is compared."));
  at("differs-said").replaceChildren(...parts);
}
