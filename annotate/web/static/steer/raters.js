// The raters: how much each one does, and how well; one of them with their newest answers. Reviewers see pseudonyms.

import { shareMark } from "./charts.js";
import { ago, bar, count, decimal, duration, make, note, percent, table } from "./widgets.js";
import { fill } from "./live.js";
import { flagWords } from "./overview.js";
import { actions } from "./person.js";
import { t } from "../words.js";

const sorting = { key: "answers", down: true };

export async function draw(box, here) {
  if (here.rest[0]) return one(box, here, here.rest[0]);
  const body = make("div.list");
  box.append(make("h1", {}, t("Raters")), body);
  let report = null;
  const redraw = () => fill(body, list(report, here, redraw));
  const look = async () => {
    report = await here.api("GET", "report");
    redraw();
  };
  await look();
  here.every(look);
}

function list(report, here, redraw) {
  const raters = report.people.filter((one) => one.role === "rater" || one.answers);
  if (!raters.length) return [note(here.owner ? t("Nobody rates yet: invite raters under People.") : t("Nobody rates yet."))];
  const most = Math.max(1, ...raters.map((one) => one.answers));
  const columns = [
    { key: "rater", label: t("Rater"), sort: (one) => one.rater, cell: (one) => make("a", { href: here.to("raters", one.pseudonym), dir: "auto" }, one.rater) },
    { key: "notes", label: t("Look at"), cell: (one) => make("span.badges", {}, warnings(one)) },
    { key: "answers", label: t("Answers"), number: true, sort: (one) => one.answers, cell: (one) => bar(one.answers / most, count(one.answers)) },
    { key: "seconds", label: t("Median time"), number: true, sort: (one) => one.median_seconds, cell: (one) => duration(one.median_seconds) },
    { key: "gold", label: t("Checks right"), number: true, sort: (one) => one.gold_accuracy, cell: (one) => percent(one.gold_accuracy) },
    { key: "agreement", label: t("Sides with the others"), sort: (one) => one.agreement?.value, cell: (one) => share(one.agreement, "value") },
    { key: "first", label: t("Prefers what is shown first"), sort: (one) => one.position_bias?.first, cell: (one) => share(one.position_bias, "first") },
    { key: "skipped", label: t("Skipped"), number: true, sort: (one) => one.skipped, cell: (one) => count(one.skipped) },
  ];
  return [
    table(t("Raters"), columns, raters, { state: sorting, redraw, rowKey: (one) => one.pseudonym }),
    make(
      "details.explain",
      { "data-key": "explain" },
      make("summary", {}, t("What the columns mean")),
      make(
        "ul",
        {},
        make("li", {}, t("Sides with the others: of the pairs on which the others lean to one side, how often this rater does, too. A coin gets 50%. The line is the 95% interval.")),
        make("li", {}, t("Prefers what is shown first: 50% is even, since the order is shuffled. It is flagged when its whole interval is on one side.")),
        make("li", {}, t("Somebody far from the others may be the one who understood the guidelines. Read their answers before you judge.")),
      ),
    ),
  ];
}

function share(found, key) {
  if (!found) return "–";
  const said = percent(found[key]);
  const between = t("{share}, 95% between {low} and {high}, from {n}", { share: said, low: percent(found.interval?.[0]), high: percent(found.interval?.[1]), n: found.n });
  return make("span.share", { title: between }, shareMark(found[key], found.interval, { said: between }), make("span", { "aria-hidden": "true" }, said));
}

// What is worth a look, each with its reason.
function warnings(one) {
  const made = [];
  const warn = (words, why) => make("span.badge.warn", { title: why }, words, make("span.unseen", {}, ": " + why));
  if (one.speeder?.is) {
    const times = { median: duration(one.speeder.median_seconds), limit: duration(one.speeder.limit_seconds) };
    made.push(warn(t("very fast"), t("median {median}, and less than {limit} is too fast to read", times)));
  }
  if (one.position_bias?.biased) made.push(warn(t("position"), t("prefers one place on the screen: the first in {share}", { share: percent(one.position_bias.first) })));
  if (one.agreement?.interval?.[1] < 0.5) made.push(warn(t("against the others"), t("sides with the others in {share} only", { share: percent(one.agreement.value) })));
  if (one.gold_accuracy !== null && one.gold_accuracy < 0.6) made.push(warn(t("checks"), t("{share} of the checks right", { share: percent(one.gold_accuracy) })));
  return made;
}

async function one(box, here, pseudonym) {
  const report = await here.api("GET", "report");
  const person = report.people.find((known) => known.pseudonym === pseudonym);
  const back = make("a.back", { href: here.to("raters") }, t("All raters"));
  if (!person) return box.append(back, make("h1", {}, t("Nobody is here")), note(t("There is no such rater in this project.")));
  const tile = (number, label, more = null) => make("div.tile", {}, make("b", {}, number), make("span", {}, label), more && make("small", {}, more));
  const line = (found, key) => found && make("span", { title: "" }, share(found, key).firstChild);
  box.append(
    back,
    make("h1", { dir: "auto" }, person.rater),
    here.owner && person.name ? note(person.name) : "",
    make("p.badges", {}, warnings(person).flatMap((badge) => [badge, " ", make("span.soft", {}, badge.title), make("br")])),
    make(
      "div.tiles",
      {},
      tile(count(person.answers), t("answers")),
      tile(duration(person.median_seconds), t("median time")),
      tile(percent(person.gold_accuracy), t("of the checks right")),
      tile(percent(person.agreement?.value), t("sides with the others"), line(person.agreement, "value")),
      tile(percent(person.position_bias?.first), t("prefers what is shown first"), line(person.position_bias, "first")),
      tile(decimal(person.reliability), t("reliability, as exports weigh")),
    ),
  );
  if (here.owner) box.append(await actions(here, pseudonym));
  box.append(make("h2", {}, t("Newest answers")), await newest(here, pseudonym));
}

async function newest(here, pseudonym) {
  const { answers } = await here.api("GET", `answers?rater=${encodeURIComponent(pseudonym)}&newest=true&limit=30`);
  if (!answers.length) return note(t("No answer yet."));
  const kinds = { gold: t("check"), training: t("practice"), surplus: t("more than wanted"), imported: t("imported") };
  const more = (one) =>
    make(
      "span.badges",
      {},
      kinds[one.kind] ? make("span.badge", {}, kinds[one.kind]) : null,
      one.flags.map((flag) => make("span.badge.warn", {}, flagWords()[flag] ?? flag)),
      one.rationale ? make("span", { dir: "auto" }, one.rationale) : null,
    );
  const columns = [
    { key: "item", label: t("Item"), cell: (one) => make("a", { href: here.to("items", String(one.item)), dir: "auto" }, one.key) },
    { key: "when", label: t("When"), cell: (one) => ago(one.submitted_at) },
    { key: "ranks", label: t("Ranks"), cell: (one) => one.ranks.join(" · ") },
    { key: "seconds", label: t("Time"), number: true, cell: (one) => duration(one.seconds) },
    { key: "more", label: t("Also said"), cell: more },
  ];
  return table(t("Newest answers"), columns, answers);
}
