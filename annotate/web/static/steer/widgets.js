// Small things for the owner's and the reviewer's page: elements, tables, dialogs, words for numbers and times.
// Whatever comes from outside goes in as text, or as HTML that the server has cleaned.

import { bodyOf, tame } from "../text.js";
import * as words from "../words.js";
import { t } from "../words.js";

// make("button.quiet", { type: "button", onclick }, "Words", child, …). Properties with "on" are listeners; "aria-…",
// "data-…", "for" and what the element has no property for become attributes; undefined and false leave it out.
export function make(what, given = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !/^(aria|data)-|^(list|form)$/.test(name)) made[name] = value;
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map(tame));
  return made;
}

export const rendered = bodyOf; // what the server has rendered and cleaned

export const button = (said, onclick, kind = "quiet", more = {}) =>
  make(`button.${kind}`, { type: "button", onclick, ...more }, said);

// A listener that passes over what comes while it is at work: the second half of a double click makes nothing twice.
export function oneAtATime(act) {
  let busy = false;
  return async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    try {
      await act();
    } finally {
      busy = false;
    }
  };
}

export const note = (said, kind = "soft") => make(`p.${kind}`, {}, said);

// A conversation, or what a response says: [{role, html}].
export function turns(list, only = false) {
  const shown = only ? list.slice(-1) : list;
  return make(
    "div.turns",
    {},
    shown.map(({ role, html }) =>
      make(`div.turn.${role}`, {}, list.length > 1 ? make("small.role", {}, roleWords(role)) : null, rendered(html)),
    ),
  );
}

function roleWords(role) {
  return { user: t("Person"), assistant: t("Model"), system: t("System"), tool: t("Tool") }[role] ?? role;
}

// --- forms ---

let ids = 0;
export const newId = (stem = "f") => `${stem}-${++ids}`;

// A labelled control. `hint` says what it means, below.
export function field(label, control, hint = "") {
  control.id ||= newId();
  const said = hint ? make("small.hint", { id: control.id + "-hint" }, hint) : null;
  if (said) control.setAttribute("aria-describedby", said.id);
  if (control.type === "checkbox") {
    return make("div.field.tick", {}, make("label", { for: control.id }, control, make("span", {}, label)), said);
  }
  return make("div.field", {}, make("label", { for: control.id }, label), control, said);
}

export const input = (value, given = {}) => make("input", { type: "text", ...given, value: value ?? "" });
export const number = (value, given = {}) => input(value, { type: "number", inputMode: "decimal", ...given });
export const tick = (checked, given = {}) => make("input", { type: "checkbox", checked: Boolean(checked), ...given });
export const area = (value, rows = 4, given = {}) => make("textarea", { rows, dir: "auto", ...given, value: value ?? "" });

export function select(value, options, given = {}) {
  const made = make("select", given, options.map(([key, said]) => make("option", { value: key }, said)));
  made.value = String(value);
  return made;
}

// --- tables ---

// columns: [{key, label, number?, sort?(row), cell(row)}]; `state` = {key, down} is kept by who calls, for redraws.
export function table(label, columns, rows, { state, redraw, rowKey } = {}) {
  const by = state && columns.find((column) => column.key === state.key && column.sort);
  const sorted = by ? [...rows].sort((a, b) => compare(by.sort(a), by.sort(b)) * (state.down ? -1 : 1)) : rows;
  const head = columns.map((column) => {
    const kind = column.number ? "th.number" : "th";
    if (!column.sort || !state) return make(kind, { scope: "col" }, column.label);
    const order = by === column ? (state.down ? "descending" : "ascending") : "none";
    const sort = () => {
      state.down = state.key === column.key ? !state.down : Boolean(column.number);
      state.key = column.key;
      redraw();
    };
    return make(kind, { scope: "col", "aria-sort": order }, button(column.label, sort, "sort"));
  });
  const body = sorted.map((row) =>
    make(
      "tr",
      { "data-key": rowKey ? rowKey(row) : null },
      columns.map((column, index) =>
        make(column.number ? "td.number" : index ? "td" : "th", { "data-label": column.label, scope: index ? null : "row" }, column.cell(row)),
      ),
    ),
  );
  return make(
    "div.table",
    { tabindex: "0", role: "region", "aria-label": label },
    make("table", {}, make("caption.unseen", {}, label), make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)),
  );
}

function compare(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

// A share as a bar behind its number.
export function bar(share, said) {
  const filled = make("i");
  filled.style.inlineSize = `${Math.round(1000 * Math.min(1, Math.max(0, share || 0))) / 10}%`;
  return make("span.barred", {}, make("span.bar", { "aria-hidden": "true" }, filled), make("span", {}, said));
}

// --- dialogs ---

// Ask in a dialog; gives the form's data, or null. `typed` is a word that must be typed before it goes on.
export function ask(title, { text = "", body = [], yes = t("OK"), typed = "", danger = false } = {}) {
  const heading = make("h2", { id: newId("dialog") }, title);
  const confirm = typed ? input("", { autocomplete: "off", spellcheck: false }) : null;
  const go = make(danger ? "button.primary.danger" : "button.primary", { value: "ok", disabled: Boolean(typed) }, yes);
  if (confirm) confirm.addEventListener("input", () => (go.disabled = confirm.value.trim() !== typed));
  const form = make(
    "form",
    { method: "dialog" },
    heading,
    text ? make("p", {}, text) : null,
    body,
    confirm ? field(t("Type {word} to go on", { word: typed }), confirm) : null,
    make("div.close", {}, button(t("Cancel"), () => dialog.close("cancel")), go),
  );
  const dialog = make("dialog.ask", { "aria-labelledby": heading.id }, form);
  document.getElementById("concord").append(dialog);
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "ok" ? new FormData(form) : null);
    }),
  );
}

// Show something that is shown once, such as a link, with a button that copies it.
export async function showOnce(title, text, secret) {
  const shown = input(secret, { readOnly: true, className: "secret", "aria-label": title, onfocus: () => shown.select() });
  const said = make("span.soft", { role: "status" });
  const copy = button(t("Copy"), async () => {
    shown.select();
    try {
      await navigator.clipboard.writeText(secret);
    } catch {
      document.execCommand("copy"); // without https there is no clipboard for scripts
    }
    said.textContent = t("Copied ✓");
  });
  await ask(title, { text, body: [make("div.copy", {}, shown, copy, said)], yes: t("Close") });
}

// --- numbers and times, or a dash where there is none ---

const shown = (words) => (value, ...rest) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : words(value, ...rest);

export const count = shown((value) => words.n(value, 0));
export const decimal = shown((value, digits = 2) => words.n(Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value, digits)); // no -0
export const percent = shown(words.percent);
export const money = shown(words.money);
export const when = shown(words.when);
export const ago = shown(words.ago);
export const day = shown(words.day);
export const duration = shown(words.duration);
