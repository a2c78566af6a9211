// How a project is doing: numbers and pictures that keep themselves up to date.

import { alphaPicture, alphaWords, progressPicture } from "./charts.js";
import { bar, count, day, decimal, make, money, note, percent, table } from "./widgets.js";
import { fill } from "./live.js";
import { t } from "../words.js";

const SHOWN = 30; // raters in the picture of answers per rater

export async function draw(box, here) {
  const body = make("div.overview");
  const live = make("span.live", { title: t("Looks for news every 15 seconds") }, make("i", { "aria-hidden": "true" }), t("live"));
  box.append(make("div.head", {}, make("h1", {}, t("Overview")), live), body);
  const look = async () => fill(body, parts(await here.api("GET", "report"), here, pictureWidth(body)));
  await look();
  requestAnimationFrame(() => look().catch(() => {})); // once more with the width that the box has on the page
  const resized = () => (box.isConnected ? look().catch(() => {}) : removeEventListener("resize", resized));
  addEventListener("resize", resized);
  here.every(look);
}

// Two pictures beside each other where there is room (as in steer/page.css); less what a panel has around a picture.
export function pictureWidth(body) {
  const whole = body.clientWidth || document.getElementById("content").clientWidth - 48;
  return Math.floor(Math.max(250, (whole >= 860 ? (whole - 16) / 2 : whole) - 36));
}

function parts(report, here, width) {
  const alpha = report.agreement.krippendorff_alpha_nominal;
  const interval = report.agreement.krippendorff_alpha_nominal_interval;
  return [
    make("div.tiles", { "data-key": "tiles" }, tiles(report, here)),
    first(report, here),
    make(
      "div.pictures",
      { "data-key": "pictures" },
      make("div.column", {}, panel(progressPicture(width, report.per_day, report.finish, imported(report))), panel(...perRater(report, here))),
      make("div.column", {}, panel(alphaPicture(width, alpha, interval)), panel(...flags(report), ...masked(report))),
    ),
  ];
}

export const panel = (...children) => make("section.panel", {}, children);
export const tile = (number, label, more = null) => make("div.tile", {}, make("b", {}, number), make("span", {}, label), more ? make("small", {}, more) : null);

// Answers that count and were not given here: they fill no slots.
const imported = (report) => report.answers - report.per_day.reduce((sum, one) => sum + one.answers, 0);

function tiles(report, { owner, to }) {
  const { all, filled } = report.slots;
  const alpha = report.agreement.krippendorff_alpha_nominal;
  const interval = report.agreement.krippendorff_alpha_nominal_interval;
  const between = interval ? t("95% between {low} and {high}", { low: decimal(interval[0]), high: decimal(interval[1]) }) : alphaWords(alpha, null);
  const finish = report.finish;
  const besides = [
    imported(report) ? t("of which imported: {n}", { n: imported(report) }) : null,
    report.surplus ? t("and {surplus} more than wanted", { surplus: report.surplus }) : null,
  ].filter(Boolean).join("; ");
  const made = [
    tile(t("{done} of {total}", { done: report.items_answered, total: report.items }), t("items with an answer")),
    tile(t("{done} of {total}", { done: filled, total: all }), t("answers that are wanted"), bar(all ? filled / all : 0, percent(all ? filled / all : 0))),
    tile(count(report.answers), t("answers in all"), besides || null),
    tile(count(report.raters), t("raters"), make("a", { href: to("raters") }, t("How each one does"))),
    tile(decimal(alpha), t("agreement (alpha)"), make("a", { href: to("agreement") }, between)),
  ];
  if (finish) {
    const pace = t("{rate} answers a day, {left} to go", { rate: finish.per_day, left: finish.left });
    made.push(tile(finish.left || !all ? day(finish.day) : t("Done"), t("finished by"), finish.left ? pace : null));
  }
  if (owner && report.cost) made.push(tile(money(report.cost.amount, report.cost.currency), t("cost so far"), make("a", { href: to("pay") }, t("By rater"))));
  return made;
}

// What to do first, where nothing has happened yet.
function first(report, { owner, to, project }) {
  const box = make("div.first", { "data-key": "first" });
  if (!owner) return box;
  const arena = project.arena.length > 0; // its items come from chats
  if (!report.items && !arena) box.append(make("p", {}, make("a", { href: to("items") }, t("Add items")), " ", t("from a file: prompts with the responses that raters rank.")));
  if (!report.people.some((one) => one.role === "rater")) box.append(make("p", {}, make("a", { href: to("people") }, t("Invite raters")), " ", t("with a link for each.")));
  if (!report.gold_items && !arena) box.append(make("p", {}, make("a", { href: to("gold") }, t("Write practice items")), " ", t("that show new raters what is right, and why.")));
  return box;
}

function perRater(report, { to }) {
  const raters = report.people.filter((one) => one.answers).sort((a, b) => b.answers - a.answers);
  const most = Math.max(1, ...raters.map((one) => one.answers));
  const rows = raters.slice(0, SHOWN);
  const columns = [
    { key: "rater", label: t("Rater"), cell: (one) => make("a", { href: to("raters", one.pseudonym), dir: "auto" }, one.rater) },
    { key: "answers", label: t("Answers"), cell: (one) => bar(one.answers / most, count(one.answers)) },
  ];
  const heading = make("h2", {}, t("Answers per rater"));
  if (!rows.length) return [heading, note(t("No answer yet."))];
  const rest = raters.length > SHOWN ? note(t("And {n} more raters.", { n: raters.length - SHOWN })) : null;
  return [heading, table(t("Answers per rater"), columns, rows, { rowKey: (one) => one.pseudonym }), ...(rest ? [rest] : [])];
}

export const flagWords = () => ({
  unsafe: t("harmful"), broken: t("broken"), pii: t("personal data"), "cannot-judge": t("can't be judged"), "all-bad": t("all bad"), other: t("another reason"),
});

function flags(report) {
  const rows = Object.entries(report.flags).sort((a, b) => b[1] - a[1]);
  const most = Math.max(1, ...rows.map((row) => row[1]));
  const columns = [
    { key: "flag", label: t("Flag"), cell: ([flag]) => flagWords()[flag] ?? flag },
    { key: "count", label: t("Answers and skips"), cell: ([, times]) => bar(times / most, count(times)) },
  ];
  const heading = make("h2", {}, t("What raters flag"));
  return rows.length ? [heading, table(t("What raters flag"), columns, rows)] : [heading, note(t("Nothing is flagged."))];
}

function masked(report) {
  if (!report.masked?.responses) return [];
  const text = t("Names hidden in responses: {responses}; items: {items}.", report.masked);
  return [make("h2", {}, t("Names hidden")), note(text)];
}

