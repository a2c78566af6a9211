// How prompts and responses are read: turns as a conversation, what is folded, code to copy, texts that scroll together.
// What differs between responses is in rate/differ.js.
//
// The HTML was cleaned on the server (annotate/api/render.py). Whatever this adds stands outside of it, in `.turn`, so
// that the text of a `.body` is the text of the response and nothing else.

import { redrawDiffers, setUpDiffers } from "./differ.js";
import { announce, at, element, page } from "../dom.js";
import { store } from "./outbox.js";
import { bodyOf } from "../text.js";
import { later, t } from "../words.js";

const ROLES = { user: later("User"), assistant: later("Assistant"), system: later("System"), tool: later("Tool") };
const TALKS = ["user", "assistant"]; // whose turns are open; the others' are folded
const MOST_COPIED = 100; // blocks of code that get a button
const TOGETHER = "concord:together";

// --- turns ---

// `named`: as a conversation, which says whose turn it is.
export function drawTurns(box, messages, named) {
  box.classList.toggle("chat", named);
  box.replaceChildren(...messages.map((message) => drawTurn(message, named)));
  for (const pre of [...box.querySelectorAll("pre:not(.piece)")].slice(0, MOST_COPIED)) addCodeTools(pre);
  sizes.observe(box);
}

function drawTurn({ role, html }, named) {
  const body = bodyOf(html);
  const who = t(ROLES[role] ?? ROLES.tool);
  const folded = named && !TALKS.includes(role);
  const turn = element(folded ? "details" : "div", "", `turn ${TALKS.includes(role) ? role : "aside"}`);
  if (folded) {
    const summary = element("summary", who, "who");
    const begins = element("span", body.textContent.trim().slice(0, 120), "begins");
    begins.dir = "auto";
    summary.append(begins);
    turn.append(summary);
    turn.addEventListener("toggle", () => placeCodeTools(turn));
  } else if (named) {
    turn.append(element("div", who, "who"));
  }
  turn.append(body);
  return turn;
}

// --- code: what language it is in, and a button that copies it ---

function addCodeTools(pre) {
  const turn = pre.closest(".turn");
  const tools = element("div", "", "code-tools");
  const named = pre.dataset.language ?? pre.querySelector("[data-language]")?.dataset.language ?? "";
  const copy = element("button", t("Copy"), "copy");
  copy.type = "button";
  copy.setAttribute("aria-label", named ? t("Copy the {language} code", { language: named }) : t("Copy the code"));
  copy.addEventListener("click", async () => {
    const done = await copied(pre.textContent);
    announce(done ? t("Copied") : t("Not copied: the browser does not let this page."));
    copy.textContent = done ? t("Copied ✓") : t("Not copied");
    setTimeout(() => (copy.textContent = t("Copy")), 2000);
  });
  tools.append(element("span", named), copy);
  tools.pre = pre;
  turn.classList.add("coded");
  turn.append(tools);
  sizes.observe(pre);
}

// Each button stands on its code, and yet not in it.
function placeCodeTools(box) {
  for (const tools of box.querySelectorAll(".code-tools")) {
    const { pre } = tools;
    const from = tools.parentElement.getBoundingClientRect();
    const { top, left, width } = pre.getBoundingClientRect();
    tools.hidden = width === 0;
    Object.assign(tools.style, { top: `${top - from.top}px`, left: `${left - from.left}px`, width: `${width}px` });
  }
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", text, "unseen"); // over plain http there is only the old way
    page().append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

// --- what is folded ---

export function foldPrompt() {
  const prompt = at("prompt");
  const unfolded = at("prompt-box").classList.contains("unfolded");
  at("fold").hidden = !unfolded && !overflows(prompt);
  at("fold").textContent = unfolded ? t("Show less") : t("Show all");
  at("fold").setAttribute("aria-expanded", unfolded);
}

const overflows = (box) => box.scrollHeight > box.clientHeight + 2;
const cards = () => [...at("responses").children];
const textOf = (card) => card.querySelector(".text");

// A response that is longer than its card can be shown whole.
function foldResponses() {
  for (const card of cards()) {
    const text = textOf(card);
    let button = card.querySelector(".whole-open");
    const whole = card.classList.contains("whole");
    if (!button && !whole && overflows(text)) {
      button = element("button", "", "quiet small whole-open");
      button.type = "button";
      text.id = `text-${cards().indexOf(card)}`;
      button.setAttribute("aria-controls", text.id);
      button.addEventListener("click", () => {
        card.classList.toggle("whole");
        foldResponses();
        if (!card.classList.contains("whole")) card.scrollIntoView({ block: "nearest" });
      });
      card.querySelector(".letter").after(button);
    }
    if (!button) continue;
    button.hidden = !whole && !overflows(text);
    button.textContent = whole ? t("Show less") : t("Show all");
    button.setAttribute("aria-label", `${button.textContent} (${card.querySelector(".letter").textContent})`);
    button.setAttribute("aria-expanded", whole);
  }
}

// --- scrolling together: in proportion, so that the ends of all texts are reached at once ---

let together = false;
const moved = new WeakMap(); // text -> where it was scrolled to by another one, which is no reason to scroll that one

export function toggleTogether() {
  if (at("together").hidden) return;
  together = !together;
  store(TOGETHER, together ? "on" : null);
  at("together").setAttribute("aria-pressed", together);
  announce(together ? t("Responses scroll together.") : t("Responses scroll one by one."));
  const begun = cards().map(textOf).find((text) => text.scrollTop > 0);
  if (together && begun) follow(begun);
}

function follow(text) {
  const share = text.scrollTop / Math.max(1, text.scrollHeight - text.clientHeight);
  for (const other of cards().map(textOf)) {
    if (other === text) continue;
    other.scrollTop = share * (other.scrollHeight - other.clientHeight);
    moved.set(other, other.scrollTop);
  }
}

function scrolled({ target }) {
  if (!together || !target.matches?.(".response > .text")) return;
  const by = moved.get(target);
  moved.delete(target);
  if (by === undefined || Math.abs(by - target.scrollTop) > 1) follow(target);
}

// --- what stands where, when sizes change ---

const sizes = new ResizeObserver(() => arrange());

function arrange() {
  if (page().dataset.view !== "work") return;
  for (const box of page().querySelectorAll(".work .text")) placeCodeTools(box);
  if (!at("prompt")) return; // the arena's page has texts, too, and no items
  foldPrompt();
  foldResponses();
  at("together").hidden = cards().map(textOf).filter(overflows).length < 2;
}

// A new item is on the screen.
export function drawnItem(item) {
  at("lens").hidden = item.task.responses.length < 2;
  redrawDiffers(item);
  arrange();
}

export function setUpReading() {
  try {
    together = localStorage.getItem(TOGETHER) === "on";
  } catch {
    // one by one, then
  }
  at("together").setAttribute("aria-pressed", together);
  at("together").addEventListener("click", toggleTogether);
  at("fold").addEventListener("click", () => {
    at("prompt-box").classList.toggle("unfolded");
    foldPrompt();
  });
  at("responses").addEventListener("scroll", scrolled, { capture: true, passive: true });
  setUpDiffers();
}
