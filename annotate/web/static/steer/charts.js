// Pictures as inline SVG, drawn to the width of their box: each has a title, a sentence that says what it shows, and the
// same numbers as a table. Nothing of it is a string that somebody evaluates.

import { day, decimal, make, table, when } from "./widgets.js";
import { n, t } from "../words.js";

let ids = 0;

const svgElement = (tag, given = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// A picture with its words, and the table of its numbers to open. `width` is that of the box, in CSS pixels.
function figure(title, said, { width, height }, shapes, numbers) {
  const [name, description] = [`picture-${++ids}`, `picture-${ids}-words`];
  const picture = svgElement(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": `${name} ${description}` },
    svgElement("title", { id: name }, title),
    svgElement("desc", { id: description }, said),
    ...shapes,
  );
  return make(
    "figure.picture",
    {},
    make("figcaption", {}, make("b", {}, title), make("span.soft", {}, said)),
    picture,
    numbers ? make("details.numbers", {}, make("summary", {}, t("As a table")), numbers) : null,
  );
}

const line = (x1, y1, x2, y2, kind) => svgElement("line", { x1, y1, x2, y2, class: kind });
const words = (x, y, text, anchor = "start", kind = "") =>
  svgElement("text", { x, y, "text-anchor": anchor, class: kind }, /[\u0590-\u08ff]/.test(text) ? `\u2068${text}\u2069` : text); // a picture runs from left to right, its words need not

// Answers of each day as bars, all up to each day as a line, and the way to the end as dashes.
// perDay: [{day: "2026-11-22", answers}], finish: {day, per_day, left} or null; imported: how many answers came so.
export function progressPicture(width, perDay, finish, imported) {
  const height = 210;
  const [left, right, top, bottom] = [44, width - 12, 14, height - 26];
  const days = filled(perDay);
  const end = finish?.day && days.length ? finish.day : null;
  const first = at(days[0]?.day ?? "2000-01-01");
  const ahead = end ? Math.min(Math.max(1, at(end) - at(days.at(-1).day)), 2 * days.length + 14) : 0; // not a year of dashes
  const span = Math.max(1, at(days.at(-1)?.day ?? "2000-01-01") - first + ahead);
  const all = days.reduce((sum, one) => sum + one.answers, 0);
  const goal = all + (finish?.left ?? 0);
  const x = (date) => left + ((date - first) / span) * (right - left - 16) + 8;
  const y = (value) => bottom - (value / Math.max(1, goal)) * (bottom - top);
  const most = Math.max(1, ...days.map((one) => one.answers));
  const wide = Math.max(1.5, Math.min(22, (0.7 * (right - left)) / (span + 1)));

  let sum = 0;
  const points = days.map((one) => [x(at(one.day)), y((sum += one.answers))]);
  const shapes = [0, 0.5, 1].flatMap((part) => [
    line(left, y(part * goal), right, y(part * goal), "grid"),
    words(left - 6, y(part * goal) + 4, n(Math.round(part * goal), 0), "end"),
  ]);
  for (const one of days) {
    const tall = (one.answers / most) * (bottom - top) * 0.45;
    shapes.push(svgElement("rect", { x: x(at(one.day)) - wide / 2, y: bottom - tall, width: wide, height: tall, rx: 1.5, class: "day" }));
  }
  if (points.length) {
    shapes.push(svgElement("polyline", { points: points.map((point) => point.join(",")).join(" "), class: "sum" }));
    const [lastX, lastY] = points.at(-1);
    shapes.push(svgElement("circle", { cx: lastX, cy: lastY, r: 3.5, class: "dot" }));
    if (end) shapes.push(line(lastX, lastY, x(first + span), y(goal), "forecast"));
    shapes.push(words(left, height - 8, day(days[0].day)));
    if (days.length > 1 && !end) shapes.push(words(right, height - 8, day(days.at(-1).day), "end"));
    if (end) shapes.push(words(right, height - 8, day(end), "end", "strong"));
  }
  let said = imported ? t("No answer given here yet; imported answers fill none of the places that are wanted.") : t("No answer yet.");
  if (days.length) said = t("Answers so far: {all} of {goal}.", { all, goal });
  if (days.length) said += " " + t("Bars: the answers of a day, {most} at most. Line: all up to then.", { most });
  if (end) said = t("Answers so far: {all} of {goal}. At {rate} a day the last one comes on {day}. Bars: the answers of a day, {most} at most. Line: all up to then.", { all, goal, rate: finish.per_day, day: day(end), most });
  const numbers = table(t("Answers of each day"), [
    { key: "day", label: t("Day"), cell: (one) => day(one.day) },
    { key: "answers", label: t("Answers"), number: true, cell: (one) => n(one.answers, 0) },
  ], [...days].reverse());
  return figure(t("Progress"), said, { width, height }, shapes, days.length ? numbers : null);
}

const at = (iso) => Math.round(Date.parse(iso + "T00:00:00Z") / 86400000);

// With the days in between on which nobody answered.
function filled(perDay) {
  if (!perDay.length) return [];
  const known = new Map(perDay.map((one) => [one.day, one.answers]));
  const [first, last] = [at(perDay[0].day), at(perDay.at(-1).day)];
  return Array.from({ length: last - first + 1 }, (_, index) => {
    const iso = new Date((first + index) * 86400000).toISOString().slice(0, 10);
    return { day: iso, answers: known.get(iso) ?? 0 };
  });
}

// Krippendorff's alpha with its interval, between the marks that are usual since Krippendorff (2004): 0.667 and 0.8.
export function alphaPicture(width, value, interval) {
  const height = 96;
  const [left, right, y] = [16, width - 16, 46];
  const low = Math.max(-1, Math.min(-0.2, value ?? 0, interval?.[0] ?? 0));
  const x = (alpha) => left + ((Math.max(low, alpha) - low) / (1 - low)) * (right - left);
  const zones = [[low, 0.667, "zone low"], [0.667, 0.8, "zone middle"], [0.8, 1, "zone high"]];
  const shapes = zones.map(([from, to, kind]) =>
    svgElement("rect", { x: x(from), y: y - 9, width: x(to) - x(from), height: 18, class: kind }),
  );
  for (const mark of [0, 0.667, 0.8, 1]) {
    shapes.push(line(x(mark), y - 14, x(mark), y + 14, "mark"), words(x(mark), y + 30, n(mark, 3), mark === 1 ? "end" : "middle"));
  }
  if (value !== null && value !== undefined) {
    if (interval) {
      shapes.push(line(x(interval[0]), y, x(interval[1]), y, "interval"));
      for (const edge of interval) shapes.push(line(x(edge), y - 7, x(edge), y + 7, "interval"));
    }
    shapes.push(svgElement("circle", { cx: x(value), cy: y, r: 6.5, class: "dot" }));
    const anchor = x(value) > right - 30 ? "end" : x(value) < left + 30 ? "start" : "middle";
    shapes.push(words(x(value), y - 20, decimal(value), anchor, "strong"));
  }
  return figure(t("Agreement beyond chance (Krippendorff's alpha)"), alphaWords(value, interval), { width, height }, shapes, null);
}

export function alphaWords(value, interval) {
  if (value === null || value === undefined) return t("Needs items with two answers or more.");
  const given = { value: decimal(value), low: decimal(interval?.[0]), high: decimal(interval?.[1]) };
  if (!interval) return t("{value}; more items with two answers give its interval.", given);
  if (interval[0] >= 0.8) return t("{value}, between {low} and {high}: raters agree well, 0.8 is what reliable data has.", given);
  if (interval[1] < 0.667) return t("{value}, between {low} and {high}: raters agree too little to rely on; look at contested items and at the guidelines.", given);
  if (value >= 0.667) return t("{value}, between {low} and {high}: enough for tentative conclusions.", given);
  return t("{value}, between {low} and {high}: too few answers to tell whether raters agree enough.", given);
}

// Estimates with their intervals, one under the other, all on one line from below 0 to 1: [{label, value, interval, n}].
// `head` and `counted` are the words over the labels and the counts in the table. A value may be null.
export function forestPicture(width, title, said, rows, { head, counted }) {
  const step = 40;
  const height = rows.length * step + 26;
  const [left, right] = [10, width - 10];
  const low = Math.max(-1, Math.min(0, ...rows.map((row) => row.interval?.[0] ?? row.value ?? 0)));
  const x = (value) => left + ((Math.max(low, value) - low) / (1 - low)) * (right - left);
  const shapes = MARKS.flatMap((mark) => [
    line(x(mark), 14, x(mark), height - 20, "grid"),
    words(x(mark), height - 6, n(mark, 3), mark === 1 ? "end" : mark === low ? "start" : mark === 0.667 ? "end" : "middle"),
  ]);
  rows.forEach((row, index) => {
    const y = index * step + 28;
    shapes.push(words(left, y - 12, clipped(row.label, (right - left - 44) / 6.6)));
    shapes.push(words(right, y - 12, decimal(row.value), "end", "strong"), line(left, y, right, y, "grid"));
    if (row.value === null) return;
    shapes.push(...whisker(row.interval, (at) => [x(at), y], [0, 5]));
    shapes.push(svgElement("circle", { cx: x(row.value), cy: y, r: 5, class: "dot" }));
  });
  const numbers = estimates(title, rows, { key: "label", label: head, cell: (row) => row.link ?? make("span", { dir: "auto" }, row.label) }, counted);
  return figure(title, said, { width, height }, shapes, numbers);
}

// The same beside each other, as time goes by: [{from, to, value, interval, n}].
export function timePicture(width, title, said, rows, counted) {
  const height = 220;
  const [left, right, top, bottom] = [40, width - 14, 12, height - 28];
  const low = Math.max(-1, Math.min(0, ...rows.map((row) => row.interval?.[0] ?? row.value ?? 0)));
  const x = (index) => left + ((index + 0.5) / rows.length) * (right - left);
  const y = (value) => bottom - ((Math.max(low, value) - low) / (1 - low)) * (bottom - top);
  const shapes = MARKS.flatMap((mark) => [line(left, y(mark), right, y(mark), "grid"), words(left - 6, y(mark) + 4, n(mark, 3), "end")]);
  const known = rows.map((row, index) => ({ ...row, index })).filter((row) => row.value !== null);
  shapes.push(svgElement("polyline", { points: known.map((row) => [x(row.index), y(row.value)].join(",")).join(" "), class: "sum thin" }));
  for (const row of known) {
    shapes.push(...whisker(row.interval, (at) => [x(row.index), y(at)], [4, 0]));
    shapes.push(svgElement("circle", { cx: x(row.index), cy: y(row.value), r: 5, class: "dot" }));
  }
  shapes.push(words(left, height - 8, day(rows[0].from)), words(right, height - 8, day(rows.at(-1).to), "end"));
  const first = { key: "from", label: t("When"), cell: (row) => t("{from} to {to}", { from: moment(row.from), to: moment(row.to) }) };
  return figure(title, said, { width, height }, shapes, estimates(title, rows, first, counted));
}

const MARKS = [0, 0.667, 0.8, 1]; // chance, Krippendorff's two, perfect
const moment = (iso) => when(Date.parse(iso) / 1000);
const clipped = (text, most) => (text.length > most ? text.slice(0, Math.max(1, most - 1)) + "…" : text);

// The line of an interval with its ends; `at` gives the place of a value, `[dx, dy]` is half an end.
function whisker(interval, at, [dx, dy]) {
  if (!interval) return [];
  const [[x1, y1], [x2, y2]] = interval.map(at);
  const ends = [[x1, y1], [x2, y2]].map(([x, y]) => line(x - dx, y - dy, x + dx, y + dy, "interval thin"));
  return [line(x1, y1, x2, y2, "interval"), ...ends];
}

function estimates(title, rows, first, counted) {
  return table(title, [
    first,
    { key: "value", label: t("Value"), number: true, cell: (row) => decimal(row.value) },
    { key: "interval", label: t("95% interval"), cell: (row) => (row.interval ? t("{low} to {high}", { low: decimal(row.interval[0]), high: decimal(row.interval[1]) }) : "–") },
    { key: "n", label: counted, number: true, cell: (row) => (row.n === undefined ? "" : n(row.n, 0)) },
  ], rows);
}

// A share with its interval on a short line from 0 to 1, with a mark for what would be even, or to be expected. For cells
// of tables.
export function shareMark(value, interval, { mark = 0.5, said }) {
  const [width, height] = [76, 16];
  const x = (share) => 4 + share * (width - 8);
  const shapes = [line(x(0), 8, x(1), 8, "grid"), line(x(mark), 2, x(mark), 14, "mark")];
  if (interval) shapes.push(line(x(interval[0]), 8, x(interval[1]), 8, "interval thin"));
  shapes.push(svgElement("circle", { cx: x(value), cy: 8, r: 3.5, class: "dot" }));
  return svgElement("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": said, class: "spark" }, ...shapes);
}

// How often each of a few values was said, as columns of dots: [{label, count}].
export function dotPicture(width, title, said, values) {
  const most = Math.max(1, ...values.map((one) => one.count));
  const step = Math.min(14, 84 / most);
  const height = Math.max(40, most * step) + 44;
  const column = (width - 16) / values.length;
  const shapes = [line(8, height - 34, width - 8, height - 34, "grid")];
  values.forEach(({ label, count }, index) => {
    const x = 8 + column * (index + 0.5);
    for (let dot = 0; dot < count; dot++) {
      shapes.push(svgElement("circle", { cx: x, cy: height - 42 - dot * step, r: Math.min(5, step / 2 - 1), class: "dot" }));
    }
    label.split("\n").forEach((part, row) => shapes.push(words(x, height - 18 + 14 * row, part, "middle")));
  });
  return figure(title, said, { width, height }, shapes, null);
}
