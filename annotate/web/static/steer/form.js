// The settings of a project as a form: to make one with, and to change one. `read()` gives them as the API takes them.

import { area, button, field, input, make, number, rendered, select, tick } from "./widgets.js";
import { later, t } from "../words.js";

// Names that responses give away: offered, and put in only where the owner wants them.
const KNOWN_NAMES = [
  ...["GPT-4", "GPT-4o", "GPT-5", "ChatGPT", "OpenAI", "Claude", "Anthropic", "Gemini", "Bard", "Google DeepMind"],
  ...["Llama", "Meta AI", "Mistral", "Mixtral", "Qwen", "DeepSeek", "Grok", "Command R", "Phi", "Gemma"],
];
const KNOWN_DIMENSIONS = [
  { name: later("helpful"), anchors: [later("no help"), "", later("partly"), "", later("just what was asked for")] },
  { name: later("honest"), anchors: [later("misleading"), "", later("some mistakes"), "", later("correct and open")] },
  { name: later("safe"), anchors: [later("harmful"), "", later("doubtful"), "", later("harmless")] },
];
export const PLAIN = {
  overlap: 1, strength: true, practice: 3, gold_rate: 0.1, qualify: 0, dimensions: [], rationale: "off", edit: false, spans: false,
  all_bad: false, mask: [], pay: null, consent: null, warnings: {}, skills: [], validation: 0.1, test: 0.1,
  sure: null, hold_back: null,
};

// {node, read, fill}: `fresh` forms have what can't change later; `showMarkdown(text)` renders on the server.
export function settingsForm(values, { fresh, showMarkdown }) {
  const given = { ...PLAIN, ...values };
  const controls = {
    overlap: number(given.overlap, { min: 1, max: 1000, step: 1, required: true }),
    sure: number(inPercent(given.sure), { min: 51, max: 99.9, step: "any", placeholder: "–" }),
    hold_back: number(inPercent(given.hold_back), { min: 0, max: 99, step: "any", placeholder: "–" }),
    strength: tick(given.strength),
    practice: number(given.practice, { min: 0, max: 1000, step: 1, required: true }),
    gold_rate: number(Math.round(1000 * given.gold_rate) / 10, { min: 0, max: 50, step: "any", required: true }),
    qualify: number(given.qualify, { min: 0, max: 1000, step: 1, required: true }),
    rationale: select(given.rationale, [["off", t("not asked for")], ["optional", t("if the rater likes")], ["required", t("with every answer")]]),
    edit: tick(given.edit),
    spans: tick(given.spans),
    all_bad: tick(given.all_bad),
    mask: area(given.mask.join("\n"), 4, { spellcheck: false }),
    consent: area(given.consent, 4, { maxLength: 200000 }),
    skills: area(given.skills.join("\n"), 2, { spellcheck: false }),
    validation: number(Math.round(1000 * given.validation) / 10, { min: 0, max: 99, step: "any" }),
    test: number(Math.round(1000 * given.test) / 10, { min: 0, max: 99, step: "any" }),
  };
  const dimensions = new Rows(t("Add a dimension"), dimensionRow, given.dimensions);
  const warnings = new Rows(t("Add a warning"), warningRow, Object.entries(given.warnings));
  const pay = payFields(given.pay);
  const lines = (control) => control.value.split("\n").map((line) => line.trim()).filter(Boolean);

  const node = make(
    "div.settings",
    {},
    group(
      t("Who answers what"),
      field(t("Answers for each item"), controls.overlap, t("One is cheapest. Three show how well raters agree. A change holds for items that are added from then on.")),
      field(t("Certain enough, in percent"), controls.sure, t("An item whose answers say so surely what is better is given to no more raters, from two answers on. Empty: every item gets all of its answers.")),
      field(t("Skills, one a line"), controls.skills, t("An item with such a tag goes only to raters who have the skill.")),
    ),
    group(
      t("What raters are asked"),
      fresh ? field(t("How clearly the best one is better"), controls.strength) : null,
      field(t("Ties for the worst: offer “All bad”"), controls.all_bad),
      field(t("Let raters rewrite the best response"), controls.edit, t("Each rewrite becomes a demonstration, and a pair: the rewritten one over the original.")),
      field(t("Let raters mark good and bad passages"), controls.spans),
      field(t("A reason in the rater's words"), controls.rationale),
      make("div.field", {}, make("span.label", {}, t("Ratings per dimension")), dimensions.node, suggestDimensions(dimensions)),
    ),
    group(
      t("Names to hide"),
      field(t("Hide these words in responses, one a line"), controls.mask, t("Raters see █████ instead, wherever a response says one as a whole word.")),
      chips(t("Often given away:"), KNOWN_NAMES, (name) => {
        if (!lines(controls.mask).includes(name)) controls.mask.value = [...lines(controls.mask), name].join("\n");
        controls.mask.dispatchEvent(new Event("input", { bubbles: true }));
      }),
    ),
    group(
      t("Practice and checks"),
      field(t("Practice items for a new rater"), controls.practice, t("The first gold items show what is right, and why. They count for nothing.")),
      field(t("To pass before real items"), controls.qualify, t("So many gold items a rater must get right first; 0 lets everybody begin.")),
      field(t("Checks among real items, in percent"), controls.gold_rate, t("Gold items mixed in where nobody can tell.")),
    ),
    group(t("Pay"), pay.node),
    group(t("Export"), field(t("Hold back what raters differ on more than, in percent"), controls.hold_back, t("Such items stay out of exports until somebody has decided. Empty: nothing is held back."))),
    group(
      t("Before raters begin"),
      withPreview(t("What raters must agree to (Markdown)"), controls.consent, showMarkdown),
      make("div.field", {}, make("span.label", {}, t("Content warnings by tag")), warnings.node),
    ),
    fresh
      ? group(
          t("Held back for tests"),
          field(t("For validation, in percent of the items"), controls.validation),
          field(t("For tests, in percent of the items"), controls.test),
        )
      : null,
  );

  function read() {
    const text = controls.consent.value.trim();
    const values = {
      overlap: Number(controls.overlap.value),
      practice: Number(controls.practice.value),
      gold_rate: Number(controls.gold_rate.value) / 100,
      qualify: Number(controls.qualify.value),
      dimensions: dimensions.read(),
      rationale: controls.rationale.value,
      edit: controls.edit.checked,
      spans: controls.spans.checked,
      all_bad: controls.all_bad.checked,
      mask: [...new Set(lines(controls.mask))],
      pay: pay.read(),
      consent: text || null,
      warnings: Object.fromEntries(warnings.read()),
      skills: [...new Set(lines(controls.skills))],
      sure: share(controls.sure),
      hold_back: share(controls.hold_back),
    };
    if (!fresh) return values;
    const shares = { validation: Number(controls.validation.value) / 100, test: Number(controls.test.value) / 100 };
    return { ...values, strength: controls.strength.checked, ...shares };
  }
  return { node, read };
}

// A share as percent, and back; an empty field is null.
const inPercent = (value) => (value === null ? "" : Number((100 * value).toFixed(6)));
const share = (control) => (control.value === "" ? null : Number((Number(control.value) / 100).toFixed(8)));

const group = (title, ...fields) => make("fieldset.group", {}, make("legend", {}, title), fields);

function chips(label, names, choose) {
  return make("div.chips", { role: "group", "aria-label": label }, make("span.soft", {}, label), names.map((name) => button(name, () => choose(name), "chip")));
}

// Markdown on one side, on the other what raters will see, as the server renders it.
export function withPreview(label, control, showMarkdown, hint = "") {
  const shown = make("div.preview.text", { "aria-label": t("Preview: {what}", { what: label }), role: "region", tabindex: "0" });
  let waiting = 0;
  const show = async () => {
    const text = control.value;
    shown.hidden = !text.trim();
    if (shown.hidden) return;
    const html = await showMarkdown(text).catch(() => null);
    if (html !== null && control.value === text) shown.replaceChildren(rendered(html));
  };
  control.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 400);
  });
  show();
  return make("div.beside", {}, field(label, control, hint), shown);
}

// Rows that can be added and taken away. `drawRow(value)` gives {node, read}.
class Rows {
  constructor(words, drawRow, values) {
    Object.assign(this, { drawRow, rows: [], list: make("div.rows") });
    this.node = make("div", {}, this.list, button(words, () => this.add(undefined, true)));
    for (const value of values) this.add(value);
  }

  add(value, focus = false) {
    const row = this.drawRow(value);
    const away = button("×", () => {
      this.rows = this.rows.filter((one) => one !== row);
      line.remove();
      this.node.dispatchEvent(new Event("input", { bubbles: true }));
    }, "bare", { "aria-label": t("Remove") });
    const line = make("div.row", {}, row.node, away);
    this.rows.push(row);
    this.list.append(line);
    if (focus) line.querySelector("input").focus();
    this.node.dispatchEvent(new Event("input", { bubbles: true }));
  }

  read() {
    return this.rows.map((row) => row.read()).filter(Boolean);
  }
}

function dimensionRow({ name = "", anchors = ["", "", "", "", ""] } = {}) {
  const named = input(name, { maxLength: 100, placeholder: t("Name, such as helpful"), "aria-label": t("Name of the dimension"), dir: "auto" });
  const steps = select(anchors.length, [2, 3, 4, 5, 6, 7].map((count) => [count, t("{count} steps", { count })]), { "aria-label": t("Steps") });
  const words = make("div.anchors");
  const show = (known) => {
    words.replaceChildren(
      ...Array.from({ length: Number(steps.value) }, (_, index) =>
        input(known[index] ?? "", { maxLength: 200, placeholder: String(index + 1), "aria-label": t("Words on step {step}", { step: index + 1 }), dir: "auto" }),
      ),
    );
  };
  const said = () => [...words.children].map((one) => one.value.trim());
  show(anchors);
  steps.addEventListener("change", () => show(said()));
  return {
    node: make("div.dimension", {}, named, steps, words),
    read: () => (named.value.trim() ? { name: named.value.trim(), anchors: said() } : null),
  };
}

function suggestDimensions(rows) {
  const words = KNOWN_DIMENSIONS.map(({ name }) => t(name));
  return chips(t("Often used:"), words, (chosen) => {
    const { name, anchors } = KNOWN_DIMENSIONS[words.indexOf(chosen)];
    if (rows.read().some((row) => row.name === t(name))) return;
    rows.add({ name: t(name), anchors: anchors.map((one) => (one ? t(one) : "")) });
  });
}

function warningRow([tag, words] = ["", ""]) {
  const tagged = input(tag, { maxLength: 200, placeholder: t("Tag"), "aria-label": t("Tag"), dir: "auto" });
  const said = input(words, { maxLength: 2000, placeholder: t("What raters are told"), "aria-label": t("What raters are told"), dir: "auto" });
  const read = () => (tagged.value.trim() && said.value.trim() ? [tagged.value.trim(), said.value.trim()] : null);
  return { node: make("div.pair", {}, tagged, said), read };
}

// What raters earn; nothing is said of money where no amount is given.
export function payFields(pay) {
  const amount = number(pay?.amount ?? "", { min: 0, step: "any", placeholder: "–" });
  const currency = input(pay?.currency ?? "EUR", { maxLength: 3, size: 4, spellcheck: false, pattern: "[A-Za-z]{3}" });
  const per = select(pay?.per ?? "hour", [["hour", t("an hour of active time")], ["answer", t("an answer")]]);
  return {
    node: make(
      "div.fields",
      {},
      field(t("Amount"), amount, t("Raters see what they have earned. Empty: nothing is said of pay.")),
      field(t("Currency"), currency),
      field(t("For"), per),
    ),
    read: () => (amount.value === "" ? null : { amount: Number(amount.value), currency: currency.value.toUpperCase(), per: per.value }),
  };
}
