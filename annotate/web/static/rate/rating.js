// The rating of an item: what a rater has filled in, what is missing, and what of it goes into the answer. No page, no
// server.
//
// {scale, ranks, strength, ratings: {dimension: [1..n or null per response]}, flags, rationale, spans, edited, seconds};
// null where nothing is given yet. Responses are in the order shown.

import { later, t } from "../words.js";

export const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
export const FLAGS = [
  ["unsafe", later("Unsafe or harmful")], ["broken", later("Broken: cut off, empty or garbled")],
  ["pii", later("Contains personal data")], ["cannot-judge", later("I can't judge this")],
];
export const ALL_BAD = "all-bad"; // a flag with a button of its own
const SCALE = [
  [-3, later("A much better")], [-2, later("A clearly")], [-1, later("A slightly")], [0, later("Same")],
  [1, later("B slightly")], [2, later("B clearly")], [3, later("B much better")],
];
const PLAIN_SCALE = [[-1, later("A better")], [0, later("Same")], [1, later("B better")]];
const STRENGTH = [[1, later("slightly better")], [2, later("clearly better")], [3, later("much better")]];
const NOTHING = { dimensions: [], all_bad: false, rationale: "off", edit: false, spans: false };

export const letter = (index) => LETTERS[index] ?? String(index + 1);

// What there is to choose from: [[value, words]].
const said = (options) => options.map(([value, words]) => [value, t(words)]);
export const pairSteps = (strength) => said(strength ? SCALE : PLAIN_SCALE);
export const strengthSteps = () => said(STRENGTH);

// What an answer to a pair said.
export function pairInWords(ranks, strength) {
  const value = strength ?? Math.sign(ranks[0] - ranks[1]);
  return pairSteps(strength !== null).find(([step]) => step === value)[1];
}

// What the project of a task asks for beside the ranking.
export const asksOf = (task) => ({ ...NOTHING, ...task.asks });

export function freshRating(task) {
  const none = () => task.responses.map(() => null);
  const ratings = Object.fromEntries(asksOf(task).dimensions.map(({ name }) => [name, none()]));
  return {
    scale: null, ranks: none(), strength: null, ratings, flags: [], rationale: "", spans: [], edited: null, seconds: 0,
  };
}

// What a draft holds (null: there is none), where it still fits what the project asks for.
export function restored(task, draft) {
  const rating = { ...freshRating(task), ...draft };
  rating.ratings = fitting(task, draft?.ratings);
  return rating;
}

// The rating that an answer of before came from, to be changed.
export function ratingOf(task) {
  const { ranks, strength, flags, ratings, rationale, spans, edited } = task.given;
  const side = Math.sign(ranks[0] - ranks[1]);
  const scale = task.responses.length !== 2 ? null : !task.strength ? side : side ? strength : 0;
  return {
    ...freshRating(task), scale, strength, edited,
    ranks: [...ranks], flags: [...flags], spans: [...(spans ?? [])], rationale: rationale ?? "",
    ratings: fitting(task, ratings),
  };
}

function fitting(task, given) {
  const ratings = {};
  for (const { name, anchors } of asksOf(task).dimensions) {
    const fits = (step) => (Number.isInteger(step) && step >= 1 && step <= anchors.length ? step : null);
    ratings[name] = task.responses.map((_, index) => fits(given?.[name]?.[index]));
  }
  return ratings;
}

// What of a rating goes into an answer. What the project no longer asks for, a changed answer keeps.
export function answerOf(task, rating) {
  const asks = asksOf(task);
  const asked = {
    ...(asks.dimensions.length && { ratings: rating.ratings }),
    ...(asks.rationale !== "off" && { rationale: rating.rationale.trim() || null }),
    ...(asks.edit && { edited: rating.edited }),
    ...(asks.spans && { spans: rating.spans }),
  };
  const { ratings, rationale, edited, spans } = task.given ?? {};
  const pair = task.responses.length === 2;
  return {
    assignment: task.assignment,
    ranks: ranksOf(task, rating),
    strength: !task.strength ? null : pair ? rating.scale : single(rating.ranks) ? rating.strength : 0,
    flags: rating.flags,
    seconds: Math.round(rating.seconds * 10) / 10,
    ...(task.given && { revises: task.revises, ratings, rationale, edited, spans }),
    ...asked,
  };
}

export const ranksOf = (task, { scale, ranks }) => (task.responses.length === 2 ? pairRanks(scale) : dense(ranks));

export const pairRanks = (scale) => (scale < 0 ? [1, 2] : scale > 0 ? [2, 1] : [1, 1]);

// Ranks as they are stored: 1 is there, and no number is left out.
export function dense(ranks) {
  const used = [...new Set(ranks)].sort((one, other) => one - other);
  return ranks.map((rank) => used.indexOf(rank) + 1);
}

// The responses that none is better than, once all are ranked.
export function bestOf(task, rating) {
  const given = task.responses.length === 2 ? rating.scale !== null : !rating.ranks.includes(null);
  return given ? ranksOf(task, rating).flatMap((rank, index) => (rank === 1 ? [index] : [])) : [];
}

export const single = (ranks) => ranks.filter((rank) => rank === Math.min(...ranks)).length === 1;

// "B, then A and C"
export function inWords(ranks) {
  const groups = [...new Set(ranks)].sort((one, other) => one - other).map((rank) =>
    listed(ranks.flatMap((value, index) => (value === rank ? [letter(index)] : []))),
  );
  if (groups.length === 1) return t("{responses} are the same", { responses: groups[0] });
  return groups.reduce((better, worse) => t("{better}, then {worse}", { better, worse }));
}

export const listed = (letters) => letters.reduce((some, last) => t("{some} and {last}", { some, last }));
