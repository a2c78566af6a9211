// The raters: how much each one does, and how well; one of them with their newest answers. Reviewers see pseudonyms.

import { shareMark } from "./charts.js";
import { ago, count, decimal, duration, make, note, percent, table } from "./widgets.js";
import { fill } from "./live.js";
import { flagWords } from "./overview.js";
import { actions } from "./person.js";
import { t } from "../words.js";

const sorting = { key: "answers", down: true };

export async function draw(box, here) {
  if (here.rest[0]) return one(box, here, here.rest[0]);
  const body = make("div.list.raters");
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
  const some = (of) => raters.some(of); // columns that say nothing are left out
  const columns = [
    { key: "rater", label: t("Rater"), sort: (one) => one.rater, cell: (one) => make("a", { href: here.to("raters", one.pseudonym), dir: "auto" }, one.rater) },
    { key: "notes", label: t("Look at"), cell: (one) => make("span.badges", {}, warnings(one)) },
    { key: "answers", label: t("Answers"), number: true, sort: (one) => one.answers, cell: (one) => count(one.answers) },
    { key: "seconds", label: t("Median time"), number: true, sort: (one) => one.median_seconds, cell: (one) => duration(one.median_seconds) },
    { key: "gold", label: t("Checks right"), number: true, sort: (one) => one.gold_accuracy, cell: (one) => percent(one.gold_accuracy) },
    { key: "reliability", label: t("Reliability"), sort: (one) => one.reliability, cell: (one) => reliability(one) },
    { key: "agreement", label: t("Sides with the others"), sort: (one) => one.agreement?.value, cell: (one) => share(one.agreement, "value") },
    { key: "first", label: t("Prefers what is shown first"), sort: (one) => one.position_bias?.first, cell: (one) => share(one.position_bias, "first") },
    { key: "longer", label: t("Prefers the longer one"), sort: (one) => one.length_bias?.longer, cell: (one) => share(one.length_bias, "longer", one.length_bias?.expected) },
    { key: "skipped", label: t("Skipped"), number: true, sort: (one) => one.skipped, cell: (one) => count(one.skipped) },
  ].filter(({ key }) => (key !== "gold" || some((one) => one.gold_accuracy !== null)) && (key !== "skipped" || some((one) => one.skipped)) && (key !== "longer" || some((one) => one.length_bias)));
  return [
    table(t("Raters"), columns, raters, { state: sorting, redraw, rowKey: (one) => one.pseudonym }),
    make(
      "details.explain",
      { "data-key": "explain" },
      make("summary", {}, t("What the columns mean")),
      make(
        "ul",
        {},
        make("li", {}, t("Reliability: from 0, a coin, to 1, their own judgement each time; learnt from all answers at once, since who agrees with reliable raters is reliable. Exports weigh answers by it.")),
        make("li", {}, t("Sides with the others: of the pairs on which the others lean to one side, how often this rater does, too. A coin gets 50%. The line is the 95% interval.")),
        make("li", {}, t("Prefers what is shown first: 50% is even, since the order is shuffled. It is flagged when its whole interval is on one side.")),
        make("li", {}, t("Prefers the longer one: the mark is what is to be expected of this rater, since longer responses are often better. It is flagged when the whole interval is on one side of the mark.")),
        make("li", {}, t("Somebody far from the others may be the one who understood the guidelines. Read their answers before you judge.")),
      ),
    ),
  ];
}

// A share with its interval, and `mark`, what is to be expected.
function share(found, key, mark = 0.5) {
  if (!found) return "–";
  const said = percent(found[key]);
  const between = t("{share}, 95% between {low} and {high}, from {n}", { share: said, low: percent(found.interval?.[0]), high: percent(found.interval?.[1]), n: found.n });
  return make("span.share", { title: between }, shareMark(found[key], found.interval, { said: between, mark }), make("span", { "aria-hidden": "true" }, said));
}

function reliability(one) {
  if (one.reliability === null) return "–";
  const said = decimal(one.reliability);
  const interval = one.reliability_interval;
  const between = t("{value}, 95% between {low} and {high}", { value: said, low: decimal(interval?.[0]), high: decimal(interval?.[1]) });
  return make("span.share", { title: between }, shareMark(one.reliability, interval, { said: between, mark: 0 }), make("span", { "aria-hidden": "true" }, said));
}

// What is worth a look (`findings` of the report): each as a word or two, and its evidence.
function findings(one) {
  const between = ([low, high], said) => ({ low: said(low), high: said(high) });
  const words = {
    speed: () => [t("very fast"), t("median {median}, and less than {limit} is too fast to read", { median: duration(one.speeder.median_seconds), limit: duration(one.speeder.limit_seconds) })],
    spam: () => [t("like a coin"), t("reliability {value}, between {low} and {high}, from {n} answers: they tell little or nothing of the responses", { value: decimal(one.reliability), ...between(one.spammer.interval, decimal), n: one.spammer.n })],
    position: () => [t("position"), t("prefers one place on the screen: the first in {share} of {n} pairs, between {low} and {high}", { share: percent(one.position_bias.first), ...between(one.position_bias.interval, percent), n: one.position_bias.n })],
    length: () => {
      const found = one.length_bias;
      const values = { share: percent(found.longer), ...between(found.interval, percent), n: found.n, expected: percent(found.expected) };
      if (found.longer > found.expected) return [t("longer"), t("prefers the longer response in {share} of {n} pairs, between {low} and {high}, where {expected} is to be expected", values)];
      return [t("shorter"), t("prefers the longer response in {share} of {n} pairs, between {low} and {high}, where {expected} is to be expected", values)];
    },
    others: () => [t("against the others"), t("sides with the others in {share} only, between {low} and {high}, of {n} answers", { share: percent(one.agreement.value), ...between(one.agreement.interval, percent), n: one.agreement.n })],
    checks: () => [t("checks"), t("{share} of the checks right", { share: percent(one.gold_accuracy) })],
  };
  return one.findings.filter((name) => name in words).map((name) => words[name]());
}

const warnings = (one) => findings(one).map(([short, why]) => make("span.badge.warn", { title: why }, short, make("span.unseen", {}, ": " + why)));

async function one(box, here, pseudonym) {
  const report = await here.api("GET", "report");
  const person = report.people.find((known) => known.pseudonym === pseudonym);
  const back = make("a.back", { href: here.to("raters") }, t("All raters"));
  if (!person) return box.append(back, make("h1", {}, t("Nobody is here")), note(t("There is no such rater in this project.")));
  const tile = (number, label, more = null) => make("div.tile", {}, make("b", {}, number), make("span", {}, label), more && make("small", {}, more));
  const line = (found, ...rest) => found && make("span", { title: "" }, share(found, ...rest).firstChild);
  box.append(
    back,
    make("h1", { dir: "auto" }, person.rater),
    here.owner && person.name ? note(person.name) : "",
    ...findings(person).map(([short, why]) => make("p", {}, make("span.badge.warn", {}, short), " ", why)),
    make(
      "div.tiles",
      {},
      tile(count(person.answers), t("answers")),
      tile(duration(person.median_seconds), t("median time")),
      tile(percent(person.gold_accuracy), t("of the checks right")),
      tile(decimal(person.reliability), t("reliability"), person.reliability_interval && make("span", {}, reliability(person).firstChild)),
      tile(percent(person.agreement?.value), t("sides with the others"), line(person.agreement, "value")),
      tile(percent(person.position_bias?.first), t("prefers what is shown first"), line(person.position_bias, "first")),
      tile(decimal(person.kappa?.value), t("kappa with the others"), person.kappa?.interval && t("95% between {low} and {high}", { low: decimal(person.kappa.interval[0]), high: decimal(person.kappa.interval[1]) })),
      tile(percent(person.length_bias?.longer), t("prefers the longer one"), line(person.length_bias, "longer", person.length_bias?.expected)),
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
