// What an export holds, and the export itself.

import { button, count, make, note, percent } from "./widgets.js";
import { save } from "./pay.js";
import { t } from "../words.js";

export async function draw(box, here) {
  box.append(make("h1", {}, t("Export")), note(t("A folder of preferences for training, as a zip file. Raters appear under pseudonyms. The same answers give the same bytes.")));
  const found = await here.api("GET", "exports/preview");
  const said = make("p", { role: "status" });
  const go = button(t("Download the zip"), () => load(go, "", ".zip"), "primary");
  const judged = button(t("Download the judgements"), () => load(judged, "/judgements", ".jsonl"));
  const names = {
    pairs: t("pairs"),
    train: t("for training"),
    validation: t("for validation"),
    test: t("for tests"),
    edited: t("pairs from rewritten responses"),
    ties: t("ties"),
    rankings: t("rankings"),
    sft: t("demonstrations"),
  };
  const tiles = Object.keys(names).filter((name) => found.counts[name] || ["pairs", "rankings"].includes(name));
  box.append(
    make("div.tiles", {}, tiles.map((name) => make("div.tile", {}, make("b", {}, count(found.counts[name] ?? 0)), make("span", {}, names[name])))),
    found.warnings.length ? make("ul.alert.mild", {}, found.warnings.map((words) => make("li", {}, words))) : "",
    found.left_out ? note(t("Left out: {n}", { n: found.left_out })) : "",
    make("div.buttons", {}, go, found.models ? judged : "", said),
    found.models ? note(t("Judgements are what raters said of the models that wrote the responses, a line an answer: to compute win rates.")) : "",
    found.rows.length ? make("h2", {}, t("The first pairs")) : "",
    ...found.rows.map(pair),
  );

  async function load(pressed, what, ending) {
    pressed.disabled = true;
    said.textContent = t("Making the file…");
    try {
      const file = await here.call("POST", `/api/v1/exports${what}`, { projects: [here.project.id] }, { file: true, seconds: 600 });
      save(`${here.project.name}${ending}`, file);
      said.textContent = t("Done ✓");
    } catch (problem) {
      said.textContent = problem.message;
    }
    pressed.disabled = false;
  }
}

// Text as it stands in the file: nothing is rendered here.
function pair(row) {
  const said = (messages) => (typeof messages === "string" ? messages : messages.map((one) => one.content).join("\n\n"));
  return make(
    "article.sample",
    {},
    make("pre.prompt", { dir: "auto" }, said(row.prompt)),
    make("div.responses", {}, side(t("chosen, by {share}", { share: percent(row.preference) }), said(row.chosen)), side(t("rejected"), said(row.rejected))),
  );
}

const side = (label, text) => make("div.response", {}, make("b.letter", {}, label), make("pre", { dir: "auto" }, text));
