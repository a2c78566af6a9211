// All projects that the person reviews or owns, each with how far it is.

import { bar, count, make, note } from "./widgets.js";
import { t } from "../words.js";

export async function draw(box, here) {
  const projects = await all(here);
  const owns = projects.some((one) => one.role === "owner");
  box.append(
    make(
      "div.head",
      {},
      make("h1", {}, t("Projects")),
      owns ? make("a.primary", { href: "#/new" }, t("New project")) : null,
    ),
  );
  if (!projects.length) box.append(note(t("You review and own no project yet.")));
  box.append(make("ul.cards", {}, projects.map(card)));
}

async function all({ call }) {
  const found = [];
  for (let after = 0; after !== null; ) {
    const page = await call("GET", `/api/v1/projects?limit=200&after=${after}`);
    found.push(...page.projects);
    after = page.after;
  }
  return found.sort((a, b) => a.closed - b.closed || b.id - a.id);
}

function card(project) {
  const badges = [
    project.role === "reviewer" ? make("span.badge", {}, t("reviewer")) : null,
    project.closed ? make("span.badge.warn", {}, t("closed")) : null,
    project.simulated ? make("span.badge.warn", {}, t("simulated")) : null,
    project.arena?.length ? make("span.badge", {}, t("arena")) : null,
  ];
  const { items, slots, filled } = project;
  const facts = [
    bar(slots ? filled / slots : 0, t("{filled} of {slots} answers", { filled, slots })),
    make("span.soft", {}, t("Items: {items}", { items: count(items) })),
  ];
  const link = make("a", { href: `#/projects/${project.id}/overview`, dir: "auto" }, project.name);
  return make("li.card", {}, make("h2", {}, link, badges), make("div.facts", {}, facts));
}
