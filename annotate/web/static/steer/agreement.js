// How well the raters agree: in all, by dimension of ratings, by tag, over time, of every two raters and of each with the
// others. Every number has its interval, drawn and as a table.

import { alphaPicture, forestPicture, timePicture } from "./charts.js";
import { count, decimal, make, note, percent, table } from "./widgets.js";
import { fill } from "./live.js";
import { panel, pictureWidth, tile } from "./overview.js";
import { t } from "../words.js";

const SHOWN = 12; // rows of a picture
const PAIRS = 30; // of raters
const ENOUGH_TAGGED = 20; // items, as in preferences/stats/agreement.py
const ALPHA = "krippendorff_alpha_nominal";

export async function draw(box, here) {
  const body = make("div.overview");
  box.append(make("div.head", {}, make("h1", {}, t("Agreement"))), body);
  const report = await here.api("GET", "report"); // once: it moves slowly, and takes the server a while
  const redraw = () => fill(body, parts(report, here, pictureWidth(body)));
  redraw();
  requestAnimationFrame(redraw); // once more with the width that the box has on the page
  const resized = () => (box.isConnected ? redraw() : removeEventListener("resize", resized));
  addEventListener("resize", resized);
}

function parts(report, here, width) {
  const found = report.agreement;
  if (!found.units) return [note(t("Needs items with two answers or more."))];
  const pictures = [
    alphaPicture(width, found[ALPHA], found[`${ALPHA}_interval`]),
    measures(width, found),
    overTime(width, report.agreement_over_time),
    byDimension(width, report.agreement_by_dimension),
    byTag(width, report.agreement_by_tag),
    eachRater(width, report, here),
  ].filter(Boolean);
  const columns = [[], []];
  const height = (column) => column.reduce((sum, one) => sum + 120 + Number(one.querySelector("svg").getAttribute("height")), 0);
  for (const one of pictures) columns[height(columns[0]) > height(columns[1]) ? 1 : 0].push(one); // into the shorter one
  return [
    make(
      "div.tiles",
      { "data-key": "tiles" },
      tile(percent(found.raw), t("of two answers to a pair are the same"), found.raw_interval ? between(found.raw_interval, percent) : null),
      tile(count(found.units), t("pairs of responses with two answers or more"), t("{n} answers each", { n: found.raters_per_unit })),
      tile(decimal(found[ALPHA]), t("agreement (alpha)"), found[`${ALPHA}_interval`] ? between(found[`${ALPHA}_interval`], decimal) : null),
    ),
    make("div.pictures", { "data-key": "pictures" }, columns.map((column) => make("div.column", {}, column.map((one) => panel(one))))),
    ...pairs(report, here),
    explained(),
  ];
}

const between = ([low, high], said) => t("95% between {low} and {high}", { low: said(low), high: said(high) });
const row = (label, one, name, n) => ({ label, value: one[name], interval: one[`${name}_interval`], n });

function measures(width, found) {
  const rows = [
    row(t("Alpha, nominal"), found, ALPHA),
    row(t("Alpha, each pair in either order"), found, "krippendorff_alpha_symmetrised"),
    row(t("Alpha, ordinal: a tie lies between the sides"), found, "krippendorff_alpha_ordinal"),
    row(t("Alpha, interval"), found, "krippendorff_alpha_interval"),
    row(t("Fleiss' kappa"), found, "fleiss_kappa"),
    row(t("Cohen's kappa, mean of pairs of raters"), found, "cohen_kappa", found.cohen_kappa_pairs),
    row(t("Kendall's W, of whole rankings"), found, "kendall_w"),
    row(t("Kendall's tau-b, of whole rankings"), found, "tau_b"),
  ].filter((one) => one.value !== null);
  const said = t("1 is perfect, 0 is chance. They differ in what they take for chance, and in how far apart two answers are.");
  return forestPicture(width, t("Measures of agreement"), said, rows, { head: t("Measure"), counted: t("Pairs of raters") });
}

function overTime(width, stretches) {
  if (!stretches.length) return null;
  const rows = stretches.map((one) => ({ ...one, value: one[ALPHA], interval: one[`${ALPHA}_interval`], n: one.items }));
  const [first, last] = [rows[0], rows.at(-1)];
  let said = t("Alpha of the items in the order of their last answer, {n} a dot. It has not clearly changed.", { n: first.items });
  if (first.interval && last.interval) {
    const values = { n: first.items, before: decimal(first.value), after: decimal(last.value) };
    if (last.interval[1] < first.interval[0]) said = t("Alpha of the items in the order of their last answer, {n} a dot. It has fallen from {before} to {after}: look at the newest contested items and at the guidelines.", values);
    if (last.interval[0] > first.interval[1]) said = t("Alpha of the items in the order of their last answer, {n} a dot. It has risen from {before} to {after}.", values);
  }
  return timePicture(width, t("Agreement over time"), said, rows, t("Items"));
}

function byDimension(width, dimensions) {
  if (!dimensions.length) return null;
  const rows = dimensions.map((one) => row(one.dimension, one, "krippendorff_alpha_ordinal", one.items));
  const said = t("Ordinal alpha of the ratings of single responses: neighbouring steps are nearer than far ones.");
  return forestPicture(width, t("Agreement on each dimension"), said, rows, { head: t("Dimension"), counted: t("Items") });
}

function byTag(width, tags) {
  if (!tags.length) return null;
  const rows = tags.slice(0, SHOWN).map((one) => row(one.tag, one, ALPHA, one.items));
  const judged = tags.filter((one) => one.less !== null);
  const less = judged.filter((one) => one.less).map((one) => one.tag);
  let said = t("Alpha of the items with each tag.");
  if (judged.length) said = t("Alpha of the items with each tag. No tag is clearly below the whole.");
  if (less.length) said = t("Raters clearly agree less than on the whole where the tag is: {tags}.", { tags: less.join(", ") });
  const few = tags.length - judged.length;
  if (few) said += " " + t("Tags with fewer than {least} items, which are not judged: {n}.", { least: ENOUGH_TAGGED, n: few });
  if (tags.length > SHOWN) said += " " + t("Shown are the {n} commonest tags of {all}.", { n: SHOWN, all: tags.length });
  return forestPicture(width, t("Agreement by tag"), said, rows, { head: t("Tag"), counted: t("Items") });
}

function eachRater(width, report, { to }) {
  const raters = report.people.filter((one) => one.kappa).sort((a, b) => a.kappa.value - b.kappa.value);
  if (raters.length < 3) return null; // of two, each is as the other
  const rows = raters.slice(0, SHOWN).map((one) => ({
    label: one.rater,
    link: make("a", { href: to("raters", one.pseudonym), dir: "auto" }, one.rater),
    value: one.kappa.value,
    interval: one.kappa.interval,
    n: one.kappa.n,
  }));
  let said = t("Kappa of each rater with those who answered the same items, the lowest first.");
  if (raters.length > SHOWN) said += " " + t("And {n} more raters.", { n: raters.length - SHOWN });
  return forestPicture(width, t("Each rater with the others"), said, rows, { head: t("Rater"), counted: t("Pairs of responses shared") });
}

function pairs(report, { to }) {
  const names = new Map(report.people.map((one) => [one.pseudonym, one.rater]));
  const found = report.rater_pairs.filter((one) => one.kappa !== null).sort((a, b) => a.kappa - b.kappa);
  if (found.length < 2) return [];
  const name = (pseudonym) => make("a", { href: to("raters", pseudonym), dir: "auto" }, names.get(pseudonym) ?? pseudonym);
  const columns = [
    { key: "raters", label: t("Raters"), cell: (one) => make("span", {}, name(one.raters[0]), " · ", name(one.raters[1])) },
    { key: "kappa", label: t("Cohen's kappa"), number: true, cell: (one) => decimal(one.kappa) },
    { key: "interval", label: t("95% interval"), cell: (one) => (one.kappa_interval ? t("{low} to {high}", { low: decimal(one.kappa_interval[0]), high: decimal(one.kappa_interval[1]) }) : "–") },
    { key: "raw", label: t("Same answer"), number: true, cell: (one) => percent(one.raw) },
    { key: "units", label: t("Pairs of responses shared"), number: true, cell: (one) => count(one.units) },
  ];
  return [
    make(
      "details.panel",
      { "data-key": "pairs" },
      make("summary", {}, t("Every two raters")),
      note(t("Those who share twenty pairs of responses or more, the lowest first.")),
      table(t("Every two raters"), columns, found.slice(0, PAIRS)),
    ),
  ];
}

function explained() {
  const items = [
    t("Same answer is the plainest number, and the easiest to misread: two coins give the same side half of the time."),
    t("Alpha and kappa take away what chance would give: 1 is perfect, 0 is chance, below 0 is worse than chance."),
    t("0.8 is usually asked of data to rely on, 0.667 to draw tentative conclusions. Preferences are partly taste, so much useful preference data is lower: then more answers to each item help, since their errors cancel out."),
    t("Lines are 95% intervals: what the number might as well have been, with other items of the same kind. Two numbers whose lines are apart do differ."),
    t("If agreement is low: read the contested items first, then the guidelines, then the raters who stand out. If one tag or dimension is low, say in the guidelines what it means."),
  ];
  return make("details.explain", { "data-key": "explain" }, make("summary", {}, t("What the numbers mean, and what to do")), make("ul", {}, items.map((one) => make("li", {}, one))));
}
