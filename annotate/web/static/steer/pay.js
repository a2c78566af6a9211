// What each rater has done and what it comes to, as a table and as a file for a spreadsheet.

import { count, duration, make, money, note, table } from "./widgets.js";
import { payFields } from "./form.js";
import { t } from "../words.js";

export async function draw(box, here) {
  const body = make("div.list");
  box.append(make("h1", {}, t("Pay")), rate(here), body);
  const report = await here.api("GET", "report");
  const people = report.people.filter((one) => one.paid);
  if (!people.length) return body.append(note(t("Nobody has answered yet.")));
  body.append(list(report, people), make("div.buttons", {}, make("button.quiet", { type: "button", onclick: () => save(here.project.name, csv(report, people)) }, t("Download as CSV"))));
}

const totals = (report, people) => ({
  answers: report.cost?.answers ?? people.reduce((sum, one) => sum + one.paid, 0),
  seconds: report.cost?.active_seconds ?? people.reduce((sum, one) => sum + (one.active_seconds ?? 0), 0),
});

function list(report, people) {
  const { currency } = report.cost ?? {};
  const all = totals(report, people);
  const columns = [
    { key: "rater", label: t("Rater"), cell: (one) => make("span", { dir: "auto" }, one.rater) },
    { key: "answers", label: t("Answers"), number: true, cell: (one) => count(one.paid) },
    { key: "time", label: t("Active time"), number: true, cell: (one) => duration(one.active_seconds) },
    { key: "each", label: t("Time for an answer"), number: true, cell: (one) => duration(one.active_seconds === undefined ? null : one.active_seconds / one.paid) },
    { key: "cost", label: t("Cost"), number: true, cell: (one) => (report.cost ? money(one.cost, currency) : "–") },
  ];
  const made = table(t("Pay by rater"), columns, people);
  const sum = [t("Total"), count(all.answers), duration(all.seconds), duration(all.answers ? all.seconds / all.answers : null), report.cost ? money(report.cost.amount, currency) : "–"];
  const cells = sum.map((words, index) => make(index ? "td.number" : "th", { scope: index ? null : "row", "data-label": columns[index].label }, words));
  made.querySelector("table").append(make("tfoot", {}, make("tr", {}, cells)));
  return made;
}

function rate(here) {
  const form = payFields(here.project.pay);
  const said = make("p", { role: "status" });
  const send = async (event) => {
    event.preventDefault();
    try {
      await here.api("PATCH", "", { pay: form.read() }, { headers: { "If-Match": `"${here.project.version}"` } });
      here.say(t("Saved ✓"));
      await here.again();
    } catch (problem) {
      said.className = "alert";
      said.textContent = problem.rule === "wrong-version" ? t("Somebody has changed the project meanwhile. Reload the page, and set it again.") : problem.message;
    }
  };
  const now = here.project.pay ? null : note(t("No rate is set, so raters are told nothing of pay."));
  return make("form.panel", { onsubmit: send }, make("h2", {}, t("Rate")), now, form.node, make("button.quiet", {}, t("Save")), said);
}

// Numbers are written with a point, whatever the language; times in seconds.
export function csv(report, people) {
  const all = totals(report, people);
  const cost = (value) => (value === null || value === undefined ? "" : value.toFixed(2));
  const rows = [
    ["rater", "name", "pseudonym", "answers", "active_seconds", "cost", "currency"],
    ...people.map((one) => [one.rater, one.name ?? "", one.pseudonym, one.paid, (one.active_seconds ?? 0).toFixed(1), cost(one.cost), report.cost?.currency ?? ""]),
    ["total", "", "", all.answers, all.seconds.toFixed(1), cost(report.cost?.amount), report.cost?.currency ?? ""],
  ];
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// Quoted, and with a ' before what a spreadsheet would take for a formula: names are other people's words.
function cell(value) {
  const text = String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !/^-?[\d.]+$/.test(text) ? "'" + text : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// Let the browser store a file that was made here.
export function save(name, content, type = "text/csv;charset=utf-8") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob(["\ufeff", content], { type }));
  make("a", { href: url, download: content instanceof Blob ? name : `${name}-pay.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

