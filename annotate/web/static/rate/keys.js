// What a key does. Digits and letters are for the answer; what else the page can do has a letter of its own, and with
// Shift also where that letter names a response.

import { page } from "../dom.js";
import { store } from "./outbox.js";

const SWITCH = "concord:keys"; // "off": keys that write a character do nothing
const WRITES = "input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]";

export function singleKeys() {
  try {
    return localStorage.getItem(SWITCH) !== "off";
  } catch {
    return true;
  }
}

export const useSingleKeys = (on) => store(SWITCH, on ? null : "off");

// Letters and digits as this page means them: where a layout writes other signs (Arabic, Greek, French digits), a key is
// known by its place.
export function keyOf({ key, code, shiftKey }) {
  if (key.length !== 1) return key;
  if (/[a-z0-9]/i.test(key)) return key.toUpperCase();
  const [, digit, letter] = /^(?:Digit(\d)|Key([A-Z]))$/.exec(code) ?? [];
  if (digit && !shiftKey) return digit;
  return letter && key > "~" ? letter : key;
}

// `now()` tells {view, mode, item}; `acts` has what keys do in each view: {key: act}, and for the item enter, leave.
export function listenToKeys(now, acts) {
  document.addEventListener("keydown", (event) => keydown(event, now(), acts));
}

function keydown(event, { view, mode, item }, { enter, leave, work, reading, anywhere }) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (event.defaultPrevented || page().querySelector("dialog[open]")) return;
  const key = keyOf(event);
  const { target } = event;
  const working = view === "work" && item !== null;
  const radio = target.matches("input[type=radio]");
  if (working && mode !== "rate" && radio) event.preventDefault();
  if (target.closest(WRITES)) return;
  if (working && (key === "Enter" || (key === " " && item.covered))) {
    if (target.closest("a, button, summary") && target.id !== "submit") return;
    event.preventDefault();
    return void enter();
  }
  if (working && mode === "rate" && key === "Escape") return void leave();
  if (key.length === 1 && !singleKeys()) return;
  if (working && mode === "rate") {
    if (/^[1-9]$/.test(key)) {
      if (item.covered) return;
      if (target.matches("button, a, summary")) target.blur(); // Enter means submit again
      return void item.digit(Number(key));
    }
    if (!event.shiftKey && item.letter(key)) return;
  }
  const act = (working && mode === "rate" && work[key]) || (working && reading[key]) || anywhere[view]?.[key];
  if (!act) return;
  event.preventDefault();
  act();
}
