// Items whose right answer the owner knows: written here, met by new raters as practice, and later mixed in as checks.

import { area, button, field, input, make, note, number, oneAtATime, percent, table } from "./widgets.js";
import { preview } from "./file.js";
import { excerpt } from "./items.js";
import { importItems } from "./new.js";
import { dense, letter } from "../rate/rating.js";
import { t } from "../words.js";

const MOST = 9; // responses

export async function draw(box, here) {
  const { practice, gold_rate, qualify } = here.project;
  const gold = await goldItems(here);
  const rules = [
    t("A new rater begins with {practice} practice items and sees what is right.", { practice: practice ?? 0 }),
    qualify ? t("{qualify} must be right before real items come.", { qualify }) : null,
    t("Of the items after it, {share} are checks.", { share: percent(gold_rate) }),
  ];
  box.append(
    make("h1", {}, t("Practice and checks")),
    make("p.soft", {}, rules.filter(Boolean).join(" "), " ", make("a", { href: here.to("settings") }, t("Change"))),
    gold.length < (practice ?? 0) ? make("p.alert.mild", {}, t("Gold items: {n}. Write {practice} or more, so that practice is whole.", { n: gold.length, practice })) : "",
    writing(here, gold.length),
    make("h2", {}, t("Gold items")),
    gold.length ? list(gold) : note(t("There is none yet.")),
  );
}

async function goldItems({ api }) {
  const found = [];
  for (let after = 0; after !== null; ) {
    const page = await api("GET", `items?gold=true&limit=200&after=${after}`);
    found.push(...page.items.filter((one) => one.gold));
    after = page.after;
  }
  return found;
}

// --- write one ---

function writing(here, known) {
  const prompt = area("", 4, { required: true, maxLength: 200000 });
  const why = area("", 2, { maxLength: 20000 });
  const key = input("", { maxLength: 200, placeholder: `gold-${known + 1}`, spellcheck: false, dir: "auto" });
  const responses = make("div.rows");
  const found = make("div.found", { "aria-live": "polite" });
  const more = button(t("One more response"), () => add(true));
  const add = (focus = false) => {
    const index = responses.children.length;
    const text = area("", 3, { required: true, "aria-label": t("Response {letter}", { letter: letter(index) }) });
    const rank = number(Math.min(index + 1, 2), { min: 1, max: MOST, step: 1, required: true, className: "short" });
    const away = index > 1 ? button("×", () => { responses.lastElementChild.remove(); more.hidden = false; }, "bare", { "aria-label": t("Remove the last response") }) : null;
    responses.querySelector("button.bare")?.remove();
    responses.append(make("div.row.written", {}, make("b.letter", {}, letter(index)), text, field(t("Rank"), rank), away));
    more.hidden = index + 1 >= MOST;
    if (focus) text.focus();
  };
  add();
  add();

  function line() {
    const rows = [...responses.children];
    const ranks = rows.map((row) => Number(row.querySelector("input").value));
    return JSON.stringify({
      id: key.value.trim() || `gold-${known + 1}-${Date.now().toString(36)}`,
      prompt: prompt.value,
      responses: rows.map((row) => row.querySelector("textarea").value),
      gold: dense(ranks),
      ...(why.value.trim() && { explanation: why.value.trim() }),
    });
  }

  async function look() {
    try {
      found.replaceChildren(...preview(await here.call("POST", "/api/v1/projects/preview", { lines: line(), mask: here.project.mask ?? [] })));
    } catch (problem) {
      found.replaceChildren(make("p.alert", { role: "alert" }, problem.message));
    }
  }

  async function store() {
    try {
      await importItems(here.call, here.project.id, line());
      here.say(t("The practice item is there."));
      await here.again();
    } catch (problem) {
      found.replaceChildren(make("p.alert", { role: "alert" }, problem.message));
    }
  }

  return make(
    "details.panel.writing",
    { open: !known },
    make("summary", {}, t("Write a practice item")),
    make(
      "form",
      { onsubmit: oneAtATime(store) },
      field(t("Prompt (Markdown)"), prompt),
      make("fieldset.group", {}, make("legend", {}, t("Responses and their right ranks; 1 is best, ties are fine")), responses, more),
      field(t("Why that is right"), why, t("New raters read it after they have answered.")),
      field(t("Id, if you like"), key),
      found,
      make("div.buttons", {}, make("button.primary", {}, t("Add it")), button(t("Preview"), look)),
    ),
  );
}

// --- what there is ---

function list(gold) {
  const columns = [
    { key: "key", label: t("Item"), cell: (one) => make("span", { dir: "auto" }, one.key) },
    { key: "prompt", label: t("Prompt"), cell: (one) => make("span.excerpt", { dir: "auto" }, excerpt(one.prompt)) },
    { key: "ranks", label: t("Right ranks"), cell: (one) => one.gold.map((rank, index) => `${letter(index)} ${rank}`).join(", ") },
    { key: "how", label: t("Raters get it right"), cell: ({ met, right }) => (met ? t("{right} of {all}", { right, all: met }) : t("not met yet")) },
  ];
  return table(t("Gold items"), columns, gold);
}
