// The rater's page: what comes when. It shows an item while the next one is fetched, and sends answers in the background.
// Drawing is in item.js and read.js, keys in keys.js, the clock in time.js, sending in outbox.js, drafts in draft.js.

import { viewMenu } from "../look.js";
import { askFlags, askWhy, listChoices, openGuidelines, openKeys, welcome } from "./dialogs.js";
import { toggleDiffers } from "./differ.js";
import { at, link, page, say, setPage, view, whenDrawn } from "../dom.js";
import { Draft } from "./draft.js";
import { Item } from "./item.js";
import { listenToKeys } from "./keys.js";
import { askOwner, drawDone, openMine, setUpMine } from "./mine.js";
import { Outbox } from "./outbox.js";
import { ALL_BAD, answerOf, ratingOf, restored } from "./rating.js";
import { drawnItem, setUpReading, toggleTogether } from "./read.js";
import {
  drawEnd, drawFeedback, drawHead, drawProgress, drawProjects, drawReceipt, drawRefused, drawStuck, drawTask, drawTrouble,
} from "./say.js";
import { Problem, call, whoAmI } from "../server.js";
import { lastSeen, takeSeconds, watchPresence } from "./time.js";
import { speak, t, translate } from "../words.js";

const MUST_READ = ["consent-first", "guidelines-first"]; // what stands between a rater and the next item

let project = null;
let outbox = null;
let shown = null; // the item on the screen: {task, item, draft, rating}
let mode = "rate"; // or "wait" (frozen until the server gives the next one), or "feedback"
let ahead = []; // tasks that the server has given beyond the one shown
let sent = new Map(); // key of a submission -> what was on the screen, until the server has acknowledged it
let ended = new Set(); // assignments that are submitted or given up
let last = null; // the number of the answer that can be undone
let fetching = false;

const inProject = (method, path, body) => call(method, `/api/v1/projects/${project.id}/${path}`, body);

// As inProject, and if something must be read or agreed to first, that first.
async function ready(method, path, body) {
  for (;;) {
    try {
      return await inProject(method, path, body);
    } catch (problem) {
      if (!MUST_READ.includes(problem.rule)) throw problem;
      await welcomed();
    }
  }
}

async function welcomed() {
  try {
    await welcome(inProject, optedOut);
  } finally {
    if (shown) view("work"); // also where it could not be said that it was read: that is asked again
  }
}

// --- begin ---

async function start() {
  view("loading");
  say("banner");
  try {
    const me = await whoAmI();
    const rates = me.projects.filter((one) => one.role === "rater");
    const wanted = new URLSearchParams(location.search).get("project");
    project = rates.length === 1 ? rates[0] : rates.find((one) => String(one.id) === wanted) ?? null;
    drawHead(me, project);
    if (!project) return drawProjects(rates);
    const hears = { stored, refused, trouble };
    outbox ??= new Outbox(`concord:unsent:${me.login}:${project.id}:`, post, hears);
    await welcomed();
    setUpMine(inProject, change);
    shown = null;
    ahead = [];
    mode = "wait";
    if (outbox.entries.length) return void outbox.run(); // what was not sent comes first, the next item after it
    await fetchNext();
  } catch (problem) {
    stuck(problem);
  }
}

const post = (entry) => ready("POST", entry.path, { ...entry.body, holding: holding() });

// --- which item comes next ---

const inHand = () => [shown?.task, ...ahead].filter((task) => task && !ended.has(task.assignment));

// What the rater has in hand, so that the server gives what comes after it; no more than one item ahead.
const holding = () => inHand().slice(0, 1).map((task) => task.assignment);

const isKnown = ({ assignment }) =>
  ended.has(assignment) || outbox.has(assignment) || inHand().some((task) => task.assignment === assignment);

function take(next) {
  drawProgress(next.progress);
  if (next.task && !isKnown(next.task)) ahead.push({ ...next.task, givenAt: Date.now() });
  if (mode === "rate" && next.task) prefetch();
  if (mode === "rate" && MUST_READ.includes(next.why)) readNow();
  if (mode !== "wait" || advance() || outbox.entries.length) return;
  if (next.task || MUST_READ.includes(next.why)) fetchNext();
  else finish(next.why, next.progress.done);
}

// Something new to read while an item is on the screen: it is rated by that.
async function readNow() {
  try {
    await welcomed();
    prefetch();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // the next request will say it again
  }
}

// Show the next item if it is here.
function advance() {
  ahead = ahead.filter((task) => Date.now() - task.givenAt < 900 * task.lease_seconds); // others may have the rest
  const task = ahead.shift();
  if (task) show(task);
  return Boolean(task);
}

// Nothing is here and nothing on its way: ask.
async function fetchNext() {
  mode = "wait";
  if (outbox.entries.length) return page().classList.add("busy"); // else what is being sent would come again
  try {
    const next = await ready("POST", "next", { holding: [] });
    if (mode !== "wait") return take(next); // the rater has begun to change an answer meanwhile
    drawProgress(next.progress);
    if (next.task) show({ ...next.task, givenAt: Date.now() });
    else finish(next.why, next.progress.done);
  } catch (problem) {
    stuck(problem);
  }
}

// Fetch what comes after the item on the screen, while the rater reads. After practice that depends on the answer.
async function prefetch() {
  if (fetching || ahead.length || outbox.entries.length) return;
  if (!shown || shown.task.training || shown.task.revises !== null) return;
  fetching = true;
  try {
    take(await inProject("POST", "next", { holding: holding() }));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // it comes with the answer, then
  } finally {
    fetching = false;
  }
}

function show(task) {
  remember();
  mode = "rate";
  ended.delete(task.assignment);
  shown = task.held ?? hold(task);
  shown.draft.resume();
  shown.item = new Item(task, shown.rating, () => keep());
  takeSeconds(); // what passed before is not this item's
  drawTask(task);
  shown.item.draw();
  drawnItem(shown.item);
  if (!page().querySelector("dialog[open]")) at("prompt").focus({ preventScroll: true }); // reading begins there
  canUndo();
  prefetch();
}

// A task with what this page keeps of it, also while it is not on the screen.
function hold(task) {
  const draft = new Draft(`concord:draft:${project.id}:`, task, inProject, draftTrouble);
  const rating = task.given ? ratingOf(task) : restored(task, draft.load());
  return (task.held = { task, rating, draft });
}

function finish(why, done) {
  shown = null;
  drawEnd(why, done);
  view("done");
  at("done-title").focus();
  if (done) drawDone();
  canUndo();
}

// --- submit, skip, and what the server says to it ---

function submit() {
  if (mode !== "rate" || shown.item.covered) return;
  if (!shown.item.complete) return shown.item.point();
  countTime();
  send("answers", answerOf(shown.task, shown.rating));
}

async function skip() {
  const { task } = shown;
  const why = await askWhy();
  if (why && mode === "rate" && shown.task === task) send("skips", { assignment: task.assignment, ...why });
}

function send(path, body) {
  const was = shown;
  was.draft.end();
  was.item.freeze();
  ended.add(was.task.assignment);
  say("error");
  at("receipt").textContent = t("Saving…");
  at("undo").hidden = true;
  mode = "wait";
  page().classList.add("busy");
  sent.set(outbox.put(path, body).key, was);
  if (!was.task.training) advance();
}

function stored(entry, response) {
  const { receipt, next } = entry.path === "skips" ? { receipt: null, next: response } : response;
  const was = sent.get(entry.key);
  sent.delete(entry.key);
  last = receipt && !receipt.feedback ? receipt.answer : null; // an Undo beside a skip would seem to be of the skip
  drawReceipt(receipt, outbox.entries.length > 0);
  if (receipt?.feedback && was && was === shown) {
    mode = "feedback";
    drawFeedback(receipt.feedback);
    shown.item.correct(receipt.feedback.ranks);
  }
  take(next);
  canUndo();
}

// Not stored, and never will be as it is: the item comes back with the reason.
function refused(entry, problem) {
  const was = sent.get(entry.key);
  sent.delete(entry.key);
  ended.delete(entry.body.assignment);
  at("receipt").textContent = "";
  if (was) {
    if (shown !== was) putBack();
    show(was.task);
    drawRefused(problem, giveUp);
  } else {
    drawRefused(problem);
    if (mode === "wait" && !outbox.entries.length) fetchNext();
  }
}

// The outbox can't send for now; null: it can again.
function trouble(problem) {
  drawTrouble(problem);
  if (problem) at("receipt").textContent = "";
}

function draftTrouble(problem) {
  if (problem.rule === "signed-out") return trouble(problem);
  say("error", problem.message + " ", ...(problem.rule === "assignment-expired" ? [] : [link(t("Reload"), location.href)]));
}

function goOn() {
  if (!advance()) fetchNext();
}

// Put the item on the screen behind the one that is to be shown in its place.
function putBack() {
  if (shown && !ended.has(shown.task.assignment) && shown.task.revises === null) ahead.unshift(shown.task);
}

function giveUp() {
  ended.add(shown.task.assignment);
  shown.draft.end();
  goOn();
}

// --- undo ---

function canUndo() {
  const can = last !== null && !outbox.entries.length;
  at("undo").hidden = !can || shown?.task.revises != null;
  at("done-undo").hidden = !can;
}

async function undo() {
  const tell = (sentence) => say(page().dataset.view === "done" ? "done-notice" : "error", sentence);
  if (mode === "feedback" || shown?.task.revises != null) return;
  if (outbox.failing) return tell(t("Your last answer is not saved yet, so there is nothing to undo."));
  await outbox.run();
  try {
    last ??= (await inProject("GET", "answers/mine?limit=1")).answers[0]?.answer ?? null;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    return tell(t("Not undone. {why}", { why: problem.message }));
  }
  if (last === null) return tell(t("There is nothing to undo."));
  const why = await change(last);
  if (why) tell(t("Not undone. {why}", { why }));
}

// Put an answer of before on the screen, to be changed. Resolves to what is against it, or null.
async function change(answer) {
  try {
    const task = await inProject("POST", `answers/${answer}/reopen`);
    putBack();
    last = null;
    show({ ...task, givenAt: Date.now() });
    return null;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (!problem.passes && last === answer) last = null;
    canUndo();
    return problem.message;
  }
}

function leaveAsItWas() {
  if (mode !== "rate" || shown.task.revises === null) return;
  last = shown.task.revises;
  goOn();
}

// --- what the rater has filled in ---

function keep(changed = true) {
  countTime();
  shown.draft.keep(shown.rating, changed);
}

// An item that leaves the screen keeps what was filled in.
async function remember() {
  if (!shown || ended.has(shown.task.assignment)) return;
  keep(false);
  await shown.draft.save();
}

function countTime() {
  shown.rating.seconds += takeSeconds();
}

async function flag() {
  const { task, rating, item } = shown;
  const flags = await askFlags(rating.flags);
  if (!flags || mode !== "rate" || shown.task !== task) return;
  rating.flags = [...flags, ...rating.flags.filter((one) => one === ALL_BAD)];
  keep();
  item.refresh();
}

// The rater wants to see other things than before: what was given by the old wishes is asked for anew.
async function optedOut() {
  ahead = [];
  if (!shown?.task.warnings.length || mode !== "rate" || shown.task.revises !== null) return;
  await remember();
  await fetchNext();
}

function stuck(problem) {
  shown = null;
  drawStuck(problem);
}

// --- keys ---

const asked = (...keys) => Object.fromEntries(keys.map((key) => [key, () => shown.item.panel.act(key)]));

const help = { G: openGuidelines, H: openMine, "?": openKeys };
const ACTS = {
  enter,
  leave: leaveAsItWas,
  work: { S: () => shown.task.revises === null && skip(), F: flag, U: undo, ...asked("X", "K", "P", "W", "E", "M", "Backspace") },
  reading: { D: toggleDiffers, L: toggleTogether, Q: () => askOwner(shown.task.assignment), ...help },
  anywhere: { done: { U: undo, ...help }, stuck: help },
};

function enter() {
  if (mode === "feedback") goOn();
  else if (mode === "rate" && shown.item.covered) shown.item.uncover();
  else submit();
}

// --- begin, when Gradio has drawn the page ---

async function begin(found) {
  await speak();
  translate(found);
  setPage(found);
  listChoices();
  const clicks = {
    submit: enter, retry: start, "look-again": start, undo, "done-undo": undo, keep: leaveAsItWas,
    uncover: enter, "skip-open": () => mode === "rate" && skip(), "flag-open": () => mode === "rate" && flag(),
    "mine-open": openMine, "keys-open": openKeys, "question-open": () => askOwner(shown.task.assignment),
  };
  for (const [id, act] of Object.entries(clicks)) at(id).addEventListener("click", () => act());
  at("view-menu").replaceWith(viewMenu({ before: remember, more: [...at("view-menu").children] }));
  setUpReading();
  listenToKeys(() => ({ view: page().dataset.view, mode, item: shown?.item ?? null }), ACTS);
  watchPresence();
  const leave = () => document.hidden && mode === "rate" && remember();
  for (const sign of ["visibilitychange", "pagehide"]) addEventListener(sign, leave);
  for (const sign of ["online", "focus", "visibilitychange"]) addEventListener(sign, () => outbox?.wake());
  addEventListener("online", () => page().dataset.view === "stuck" && start());
  setInterval(() => mode === "rate" && !document.hidden && shown?.draft.renew(lastSeen()), 30000);
  start();
}

whenDrawn(begin);
