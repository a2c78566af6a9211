// The items: contested ones first, or all of them by id and tag; more of them from a file.

import { bar, button, count, field, input, make, note, oneAtATime, percent, table } from "./widgets.js";
import { drawItem } from "./decide.js";
import { filePicker } from "./file.js";
import { importItems } from "./new.js";
import { flagWords } from "./overview.js";
import { t } from "../words.js";

const PAGE = 50;

export async function draw(box, here) {
  if (here.rest[0]) return drawItem(box, here, Number(here.rest[0]));
  const search = here.query.get("search") ?? "";
  const all = here.query.has("all") || search !== "";
  box.append(make("div.head", {}, make("h1", {}, t("Items"))), choose(here, all), searching(here, search));
  if (here.owner) box.append(adding(here));
  const list = make("div.list");
  box.append(list);
  await (all ? drawAll(list, here, search, 0) : drawContested(list, here, 0));
}

function choose({ to }, all) {
  const tab = (words, address, current) => make("a", { href: address, "aria-current": current ? "true" : null }, words);
  return make("nav.tabs", { "aria-label": t("Which items") }, tab(t("Contested first"), to("items"), !all), tab(t("All items"), to("items") + "?all=1", all));
}

function searching({ go, to }, search) {
  const words = input(search, { type: "search", maxLength: 200, dir: "auto" });
  const find = (event) => {
    event.preventDefault();
    go(to("items") + (words.value.trim() ? `?search=${encodeURIComponent(words.value.trim())}` : "?all=1"));
  };
  return make("form.search", { role: "search", onsubmit: find }, field(t("Find by id or tag"), words), make("button.quiet", {}, t("Find")));
}

function adding(here) {
  const said = make("div", { "aria-live": "polite" });
  const go = button(t("Import"), add, "primary", { disabled: true });
  const file = filePicker({ call: here.call, mask: () => here.project.mask ?? [], changed: () => (go.disabled = false) });
  return make("details.panel.adding", { open: here.query.has("add") }, make("summary", {}, t("Add items from a file")), file.node, said, go);

  async function add() {
    go.disabled = true;
    said.replaceChildren(make("p.soft", {}, t("Importing the items…")));
    try {
      const made = await importItems(here.call, here.project.id, file.text(), file.format());
      const said = t("Imported: {items}; known already: {unchanged}.", made);
      here.say(made.priorities ? `${said} ${t("Other priorities: {priorities}.", made)}` : said);
      await here.again();
    } catch (problem) {
      said.replaceChildren(make("p.alert", { role: "alert" }, problem.message));
      go.disabled = false;
    }
  }
}

// --- lists; `after` of the next page ---

async function drawContested(list, here, after) {
  const page = await here.api("GET", `contested?after=${after}&limit=${PAGE}`);
  if (!page.items.length && !after) {
    return list.append(note(t("Nothing to decide: no item has two answers, or a flag.")), make("p", {}, make("a", { href: here.to("items") + "?all=1" }, t("All items"))));
  }
  const columns = [
    { key: "key", label: t("Item"), cell: (one) => make("a", { href: here.to("items", String(one.item)), dir: "auto" }, one.key) },
    { key: "prompt", label: t("Prompt"), cell: (one) => make("span.excerpt", { dir: "auto" }, excerpt(one.prompt)) },
    { key: "answers", label: t("Answers"), number: true, cell: (one) => count(one.answers) },
    { key: "disagreement", label: t("Disagreement"), cell: (one) => (one.disagreement === null ? "–" : bar(one.disagreement, percent(one.disagreement))) },
    { key: "flags", label: t("Flags"), cell: (one) => flags(one.flags) },
    { key: "decided", label: t("Decided"), cell: (one) => (one.decided ? t("yes") : one.held_back ? make("span.badge.warn", {}, t("held back")) : "") },
  ];
  list.append(table(t("Contested items"), columns, page.items), more(here, page.after, (next) => drawContested(list, here, next)));
}

async function drawAll(list, here, search, after) {
  const found = search ? `&search=${encodeURIComponent(search)}` : "";
  const page = await here.api("GET", `items?after=${after}&limit=${PAGE}${found}`);
  if (!page.items.length && !after) return list.append(note(search ? t("No item has this id or tag.") : t("There are no items yet.")));
  const columns = [
    { key: "key", label: t("Item"), cell: (one) => make("a", { href: here.to("items", String(one.id)), dir: "auto" }, one.key) },
    { key: "prompt", label: t("Prompt"), cell: (one) => make("span.excerpt", { dir: "auto" }, excerpt(one.prompt)) },
    { key: "tags", label: t("Tags"), cell: (one) => make("span.badges", {}, one.gold ? make("span.badge", {}, t("gold")) : null, one.tags.map((tag) => make("span.badge", { dir: "auto" }, tag))) },
    { key: "answers", label: t("Answers"), cell: (one) => (one.slots ? bar(one.filled / one.slots, t("{done} of {total}", { done: one.filled, total: one.slots })) : "–") },
    { key: "priority", label: t("Priority"), number: true, cell: (one) => String(one.priority) },
  ];
  list.append(table(t("Items"), columns, page.items), more(here, page.after, (next) => drawAll(list, here, search, next)));
}

function more(here, after, next) {
  if (after === null) return "";
  const show = async () => {
    try {
      await next(after);
      go.nextElementSibling.focus(); // what came
      go.remove();
    } catch (problem) {
      here.say(problem.message);
    }
  };
  const go = button(t("Show more"), oneAtATime(show));
  return go;
}

// The last turn of a prompt, which may be a text or turns; as text.
export function excerpt(prompt) {
  const text = typeof prompt === "string" ? prompt : (prompt.at(-1)?.content ?? "");
  return text.length > 160 ? text.slice(0, 160) + "…" : text;
}

export function flags(found) {
  return make("span.badges", {}, Object.entries(found).map(([flag, times]) => make("span.badge.warn", {}, `${flagWords()[flag] ?? flag} ${times > 1 ? "× " + times : ""}`)));
}
