// Small things for the page's document. Whatever comes from outside goes in as text.

import { tame } from "./text.js";

let root;

export const page = () => root;
export const at = (id) => root.querySelector("#" + id);

export function setPage(found) {
  root = found;
}

// Call `begin` with the page when Gradio has drawn it.
export function whenDrawn(begin) {
  const found = document.querySelector("#concord");
  if (found) return void begin(found);
  const watcher = new MutationObserver(() => {
    const drawn = document.querySelector("#concord");
    if (!drawn) return;
    watcher.disconnect();
    begin(drawn);
  });
  watcher.observe(document, { childList: true, subtree: true });
}

export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = tame(text);
  made.className = className;
  return made;
}

export function link(words, goTo) {
  const made = element("a", words);
  if (typeof goTo === "string") {
    made.href = goTo;
  } else {
    made.href = "#";
    made.addEventListener("click", (event) => {
      event.preventDefault();
      goTo();
    });
  }
  return made;
}

// Say something in a box that is hidden while there is nothing to say.
export function say(id, ...words) {
  const box = at(id);
  box.hidden = !words.length;
  box.replaceChildren(...words);
}

// Tell who listens rather than looks; nothing of it is seen.
export function announce(sentence) {
  const box = at("told");
  box.textContent = "";
  requestAnimationFrame(() => (box.textContent = sentence)); // the same words twice are two announcements
}

export function view(name) {
  root.dataset.view = name;
}

// One of a few options, as radio buttons in a row; `keyed` writes the digit that chooses it in front.
export function radios(name, options, value, label, choose, keyed = false) {
  const row = element("div", "", "steps");
  row.setAttribute("role", "radiogroup");
  row.setAttribute("aria-label", label);
  options.forEach(([option, words], index) => {
    const step = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name, value: option, checked: option === value });
    input.addEventListener("change", () => choose(option));
    step.append(input);
    if (keyed) step.append(element("kbd", String(index + 1)));
    step.append(element("span", words));
    row.append(step);
  });
  return row;
}

// Whether a key in a text field goes back to the keys of the page: Ctrl+Enter or Escape.
export function leaves(event) {
  const done = event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey));
  if (!done || event.isComposing) return false;
  event.preventDefault();
  event.stopPropagation();
  return true;
}
