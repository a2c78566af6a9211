// How a page looks to one person: light, dark or as the system has it, and how large. Kept in this browser; what is kept
// is applied by look-first.js before a page is drawn.

import { languageChooser, languages, later, percent, t } from "./words.js";

const THEMES = [["system", later("As the system")], ["light", later("Light")], ["dark", later("Dark")]];
const SIZES = [0.875, 1, 1.15, 1.3, 1.5];
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

const theme = () => root.dataset.theme ?? "system";
const size = () => Number(root.style.getPropertyValue("--text-size")) || 1;

// A menu for a page's header: colours, text size, language, and what else the page puts in. `before` is awaited before
// another language loads the page anew.
export function viewMenu({ before, more = [] } = {}) {
  const menu = make("details", "", "view-menu");
  const inside = make("div", "", "menu");
  inside.append(themes(), sizes());
  if (Object.keys(languages()).length > 1) inside.append(labelled(t("Language"), languageChooser(before)));
  inside.append(...more);
  menu.append(make("summary", t("View")), inside);
  closes(menu);
  return menu;
}

function themes() {
  const box = make("fieldset", "");
  const choice = make("div", "", "themes");
  const name = `theme-${document.querySelectorAll(".view-menu").length}`;
  for (const [value, words] of THEMES) {
    const label = make("label", "");
    const input = Object.assign(document.createElement("input"), { type: "radio", name, value });
    input.checked = value === theme();
    input.addEventListener("change", () => setTheme(value));
    label.append(input, make("span", t(words)));
    choice.append(label);
  }
  box.append(make("legend", t("Colours")), choice);
  return box;
}

function sizes() {
  const box = make("div", "", "sizes");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", t("Text size"));
  const now = make("span", percent(size()), "size");
  now.setAttribute("role", "status");
  const step = (words, sign, by) => {
    const button = Object.assign(make("button", sign, "quiet"), { type: "button" });
    button.setAttribute("aria-label", words);
    button.addEventListener("click", () => {
      const at = SIZES.reduce((best, one, index) => (Math.abs(one - size()) < Math.abs(SIZES[best] - size()) ? index : best), 0);
      setSize(SIZES[Math.max(0, Math.min(SIZES.length - 1, at + by))]);
      now.textContent = percent(size());
    });
    return button;
  };
  box.append(make("span", t("Text size")), step(t("Smaller text"), "A−", -1), now, step(t("Larger text"), "A+", 1));
  return box;
}

function labelled(words, control) {
  const label = make("label", "", "labelled");
  label.append(make("span", words), control);
  return label;
}

// A click elsewhere closes the menu, and Escape, which gives the focus back.
function closes(menu) {
  const away = (event) => menu.contains(event.target) || (menu.open = false);
  menu.addEventListener("toggle", () => {
    if (menu.open) document.addEventListener("pointerdown", away);
    else document.removeEventListener("pointerdown", away);
  });
  menu.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.preventDefault();
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

function setTheme(value) {
  keep("concord:theme", value === "system" ? null : value);
  if (value === "system") delete root.dataset.theme;
  else root.dataset.theme = value;
  darken();
}

function setSize(value) {
  keep("concord:text-size", value === 1 ? null : String(value));
  root.style.setProperty("--text-size", value);
}

// Gradio has a class of its own for dark pages.
function darken() {
  document.body.classList.toggle("dark", theme() === "dark" || (theme() === "system" && system.matches));
}

function keep(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // for as long as the page is open, then
  }
}

function make(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

darken();
system.addEventListener("change", darken);
new MutationObserver(() => {
  const dark = theme() === "dark" || (theme() === "system" && system.matches);
  if (document.body.classList.contains("dark") !== dark) darken(); // Gradio draws after us
}).observe(document.body, { attributes: true, attributeFilter: ["class"] });
