// The board: a row for each rank, and the responses on it as cards. Drag them by mouse or touch; or pick one by a click
// and click the row; or move the one in focus with the arrow keys. It gives what the rank keys give.

import { announce, at, element, page } from "../dom.js";
import { keyOf } from "./keys.js";
import { letter } from "./rating.js";
import { t } from "../words.js";

const FAR = 6; // px that the pointer moves before it drags
const EDGE = 40; // px from the edge of what scrolls, where dragging scrolls it

export class Board {
  constructor(item) {
    this.item = item;
    this.picked = null; // the index of a card that a click on a row puts there
    this.drag = null; // {card, x, y, moved}
    this.rows = [...item.task.responses.map((_, index) => this.#row(index + 1)), this.#row(null)];
    this.cards = item.task.responses.map((_, index) => this.#card(index));
    at("board-rows").replaceChildren(...this.rows);
    at("board").onkeydown = (event) => this.#keydown(event);
  }

  // It was opened by key: go to the card that is to be ranked.
  begin() {
    this.cards[this.item.response].focus();
    at("board").scrollIntoView({ block: "nearest" });
  }

  // If the focus is on the board, it goes to what a digit ranks next, if there is such a one.
  follow() {
    if (!at("board").contains(document.activeElement) || !this.item.current?.startsWith("rank-")) return;
    this.cards[this.item.response].focus();
  }

  refresh() {
    const { rating, response } = this.item;
    const focused = this.cards.find((card) => card === document.activeElement);
    this.cards.forEach((card, index) => {
      const row = this.#rowOf(rating.ranks[index]);
      if (card.parentNode !== row.lastChild) row.lastChild.append(card);
      const words = this.item.rankInWords(index);
      card.setAttribute("aria-label", t("Response {letter}.", { letter: letter(index) }) + " " + words);
      card.setAttribute("aria-pressed", index === this.picked);
      card.tabIndex = index === response ? 0 : -1;
    });
    for (const row of this.rows) {
      const cards = [...row.lastChild.children].sort((one, other) => one.dataset.index - other.dataset.index);
      if (cards.some((card, place) => row.lastChild.children[place] !== card)) row.lastChild.append(...cards);
      row.classList.toggle("empty", !cards.length);
      row.classList.toggle("tie", cards.length > 1 && row !== this.rows.at(-1));
    }
    at("board").classList.toggle("picking", this.picked !== null);
    this.rows.at(-1).hidden = !rating.ranks.includes(null) && this.drag === null;
    if (focused && focused !== document.activeElement) {
      this.staying = true; // it has only moved with its card
      focused.focus();
      this.staying = false;
    }
  }

  #rowOf(rank) {
    return this.rows[rank === null ? this.rows.length - 1 : rank - 1];
  }

  #row(rank) {
    const row = element("div", "", rank === null ? "rank tray" : "rank");
    row.dataset.rank = rank ?? "";
    row.append(element("span", rank === null ? t("Not ranked") : String(rank), "number"), element("div", "", "cards"));
    row.addEventListener("click", () => this.picked !== null && this.#put(this.picked, rank));
    return row;
  }

  #card(index) {
    const card = element("button", "", "board-card");
    card.type = "button";
    card.dataset.index = index;
    const words = element("span", firstWords(at("responses").children[index]), "first-words");
    words.dir = "auto"; // what is too long is cut off at the end of its own script
    card.append(element("span", letter(index), "letter"), words);
    card.addEventListener("pointerdown", (event) => this.#grab(event, index));
    card.addEventListener("pointermove", (event) => this.#move(event));
    card.addEventListener("pointerup", (event) => this.#drop(event));
    card.addEventListener("pointercancel", () => this.#letGo());
    card.addEventListener("focus", () => this.#at(index));
    card.addEventListener("click", (event) => this.#pick(event, index));
    return card;
  }

  // Digits rank the card in focus.
  #at(index) {
    if (this.staying || this.item.current === `rank-${index}`) return;
    this.item.chosen = `rank-${index}`;
    this.item.refresh();
  }

  #put(index, rank) {
    this.picked = null;
    if (this.item.rating.ranks[index] === rank) return this.refresh();
    this.item.set(`rank-${index}`, rank);
    announce(this.item.rankInWords(index));
  }

  // --- pointer ---

  #grab(event, index) {
    if (event.button !== 0 || this.item.frozen) return;
    this.drag = { index, card: this.cards[index], x: event.clientX, y: event.clientY, moved: false };
    this.drag.card.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const { drag } = this;
    if (!drag) return;
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(x, y) < FAR) return;
    if (!drag.moved) {
      drag.moved = true;
      drag.card.classList.add("dragged");
      this.picked = null;
      this.refresh(); // shows the row of those that are not ranked
    }
    drag.y -= scrollNear(drag.card, event.clientY);
    drag.card.style.transform = `translate(${x}px, ${event.clientY - drag.y}px)`;
    const over = rowAt(event);
    for (const row of this.rows) row.classList.toggle("over", row === over);
  }

  #drop(event) {
    const { drag } = this;
    const over = rowAt(event);
    this.#letGo();
    if (!drag?.moved) return;
    drag.card.addEventListener("click", stop, { capture: true, once: true }); // the click that ends a drag is none
    setTimeout(() => drag.card.removeEventListener("click", stop, { capture: true }));
    if (over) this.#put(drag.index, over.dataset.rank ? Number(over.dataset.rank) : null);
  }

  #letGo() {
    const { drag } = this;
    this.drag = null;
    if (!drag?.moved) return;
    drag.card.classList.remove("dragged");
    drag.card.style.transform = "";
    for (const row of this.rows) row.classList.remove("over");
    this.refresh();
  }

  #pick(event, index) {
    event.stopPropagation(); // it is not a click on the row that it lies in
    if (this.picked !== null && this.picked !== index) {
      return this.#put(this.picked, this.item.rating.ranks[index]); // onto another card: a tie
    }
    this.picked = this.picked === index ? null : index;
    this.refresh();
    if (this.picked !== null) announce(t("{letter} is picked; choose its row.", { letter: letter(index) }));
  }

  // --- keys, with the focus on a card ---

  #keydown(event) {
    const index = this.cards.indexOf(event.target);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = keyOf(event);
    const rtl = getComputedStyle(page()).direction === "rtl";
    const moves = { ArrowUp: -1, ArrowDown: 1 };
    const steps = { ArrowLeft: rtl ? 1 : -1, ArrowRight: rtl ? -1 : 1 };
    if (key in moves) this.#shift(index, moves[key]);
    else if (key in steps) this.cards[(index + steps[key] + this.cards.length) % this.cards.length].focus();
    else if (/^[1-9]$/.test(key)) this.item.digit(Number(key)) && this.follow();
    else if (key === "Enter") at("submit").click();
    else if (key === "Escape" && this.picked !== null) (this.picked = null), this.refresh();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // One rank better (-1) or worse (1); below the last are those without a rank.
  #shift(index, step) {
    const last = this.cards.length;
    const now = this.item.rating.ranks[index] ?? last + 1;
    const then = Math.min(last + 1, Math.max(1, now + step));
    this.#put(index, then > last ? null : then);
    if (this.item.rating.ranks.includes(null)) this.#at(index); // else digits go on to what comes after the ranks
  }
}

const stop = (event) => event.stopImmediatePropagation();

const rowAt = (event) =>
  document.elementsFromPoint(event.clientX, event.clientY).map((one) => one.closest("#board .rank")).find(Boolean) ?? null;

const firstWords = (box) => box.querySelector(".body:last-of-type, .body").textContent.trim().slice(0, 80);

// Scroll what the card lies in if the pointer is near its edge; by how many px it went.
function scrollNear(card, y) {
  const box = [at("panel"), page()].find((one) => one.scrollHeight > one.clientHeight + 1 && one.contains(card));
  if (!box) return 0;
  const { top, bottom } = box.getBoundingClientRect();
  const before = box.scrollTop;
  if (y < top + EDGE) box.scrollTop -= 8;
  else if (y > bottom - EDGE) box.scrollTop += 8;
  return box.scrollTop - before;
}
