// The arena: a chat with two hidden models, a vote, and then their names. Drawing is in arena/turns.js, the vote in
// arena/vote.js, what comes from the models in arena/stream.js.

import { hearTurn } from "./stream.js";
import { Turn, atEnd, toEnd } from "./turns.js";
import { Vote, freshVote } from "./vote.js";
import { viewMenu } from "../look.js";
import { openGuidelines, welcome } from "../rate/dialogs.js";
import { announce, at, element, link, page, say, setPage, view, whenDrawn } from "../dom.js";
import { letter, pairInWords, pairRanks } from "../rate/rating.js";
import { keyOf, singleKeys } from "../rate/keys.js";
import { store } from "../rate/outbox.js";
import { Problem, call, loginPage, whoAmI } from "../server.js";
import { takeSeconds, watchPresence } from "../rate/time.js";
import { tame } from "../text.js";
import { speak, t, translate } from "../words.js";

const MUST_READ = ["consent-first", "guidelines-first"];

let me = null;
let project = null;
let chat = null; // as the server told it: {chat, most_turns, …}
let turns = [];
let vote = null;
let mode = "idle"; // or "writing" (models are at work), "voting", "over" (the models are revealed)

const inProject = (method, path, body) => call(method, `/api/v1/projects/${project.id}/${path}`, body);
const draftName = () => `concord:arena:${me.login}:${project.id}:${chat.chat}`;
const lastTurn = () => turns[turns.length - 1];

async function ready(method, path, body) {
  for (;;) {
    try {
      return await inProject(method, path, body);
    } catch (problem) {
      if (!MUST_READ.includes(problem.rule)) throw problem;
      await welcome(inProject, () => {});
    }
  }
}

// --- begin ---

async function start(fresh = false) {
  view("loading");
  say("banner");
  say("error");
  try {
    me = await whoAmI();
    at("login").textContent = me.login;
    at("to-owner").hidden = !me.projects.some((one) => one.role === "owner");
    const arenas = me.projects.filter((one) => one.role === "rater" && one.arena);
    const wanted = new URLSearchParams(location.search).get("project");
    project = arenas.find((one) => String(one.id) === wanted) ?? (arenas.length === 1 ? arenas[0] : null);
    if (!project) return choose(arenas);
    page().querySelector(".name").textContent = tame(project.name);
    document.title = `${project.name} – Concord`;
    at("simulated").hidden = !project.simulated;
    await welcome(inProject, () => {});
    view("loading");
    show(await ready("POST", "chats", { fresh }));
  } catch (problem) {
    stuck(problem);
  }
}

function choose(arenas) {
  if (!arenas.length) {
    at("choose-title").textContent = t("There is no arena for you");
    at("projects").replaceChildren(link(t("Go to your page"), "/"));
  } else {
    const lines = arenas.map((one) => {
      const line = element("li");
      line.append(link(one.name, `/arena/?project=${one.id}`));
      return line;
    });
    at("projects").replaceChildren(...lines);
  }
  view("choose");
}

// Draw a chat as it is stored, and go on listening where a reply is missing.
function show(found) {
  chat = found;
  const draft = { words: "", ...kept() };
  at("turns").replaceChildren();
  turns = chat.turns.map(drawTurn);
  at("words").value = draft.words;
  at("words").maxLength = chat.most_text;
  vote = new Vote(chat, { ...freshVote(), ...draft.vote }, keep);
  takeSeconds();
  mode = "idle";
  view("work");
  at("talk").scrollTop = page().scrollTop = 0;
  refresh();
  grow();
  if (turns.length && !lastTurn().whole) listen();
  else toEnd();
  at("words").focus({ preventScroll: true });
}

function drawTurn({ text, replies }) {
  const turn = new Turn(text, listen);
  replies.forEach((html, side) => html !== null && turn.show(side, html));
  return turn;
}

// --- say something, and hear both ---

async function send() {
  const text = at("words").value;
  if (mode !== "idle" || !text.trim() || cannotSay()) return;
  turns.push(new Turn(text, listen));
  at("words").value = "";
  grow();
  toEnd();
  await listen();
}

async function listen() {
  const turn = lastTurn();
  const number = turns.length - 1;
  const of = chat.chat;
  mode = "writing";
  say("error");
  refresh();
  turn.begin();
  announce(t("Both are answering."));
  try {
    const end = await hearTurn(`/api/v1/projects/${project.id}/chats/${of}/turns`, number, turn.text, {
      again: () => (turn.begin(), keep()),
      event: (event) => {
        const follow = atEnd();
        turn.hear(event);
        if (follow) toEnd();
      },
      trouble,
    });
    if (chat.chat !== of) return;
    mode = "idle";
    turn.end();
    announce(end.whole ? t("Both have answered.") : t("A reply is missing. You can ask again."));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (chat.chat === of) refused(problem, turn);
  }
  refresh();
}

// The server does not take it: it goes back into the box, with the reason.
async function refused(problem, turn) {
  mode = "idle";
  trouble(problem.rule === "signed-out" ? problem : null);
  if (MUST_READ.includes(problem.rule)) {
    await welcome(inProject, () => {});
    view("work");
    return void listen();
  }
  if (turn.sides.every((side) => side.html === null)) {
    turns = turns.filter((one) => one !== turn);
    turn.remove();
    at("words").value = [turn.text, at("words").value].filter((text) => text.trim()).join("\n\n");
    grow();
    keep();
  } else {
    turn.end();
  }
  const reload = ["key-reused", "wrong-version", "already-answered"].includes(problem.rule);
  if (problem.rule !== "signed-out") say("error", problem.message, ...(reload ? [" ", link(t("Reload"), location.href)] : []));
  refresh();
}

async function stop() {
  if (mode !== "writing") return;
  at("stop").disabled = true;
  try {
    await inProject("POST", `chats/${chat.chat}/stop`);
  } catch (problem) {
    say("error", problem.message);
  } finally {
    at("stop").disabled = false;
  }
}

function trouble(problem) {
  if (!problem) {
    say("banner");
  } else if (problem.rule === "signed-out") {
    say("banner", t("You are signed out. What you have written is kept."), " ", link(t("Sign in again"), loginPage()));
  } else if (problem.status === 429) {
    say("banner", problem.message);
  } else {
    say("banner", t("The connection is lost – trying again. What the models say is kept."));
  }
}

// --- vote ---

async function sendVote() {
  if (mode !== "idle" || at("verdict").hidden || vote.missing) return;
  mode = "voting";
  keep();
  say("error");
  refresh();
  try {
    const { models } = await ready("POST", `chats/${chat.chat}/vote`, vote.body());
    const { scale } = vote.given;
    store(draftName(), null);
    reveal({ models, strength: chat.strength ? scale : null, ranks: pairRanks(scale) });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    mode = "idle";
    const [again, words] = problem.passes ? [t("Vote again"), t("Your vote is not stored yet.")] : [t("Reload"), ""];
    const go = problem.passes ? sendVote : location.href;
    say("error", `${words} ${problem.message} `, link(again, problem.rule === "signed-out" ? loginPage() : go));
  }
  refresh();
}

function reveal({ models, ranks, strength }) {
  mode = "over";
  view("work");
  for (const turn of turns) turn.reveal(models);
  const lines = models.flatMap((name, side) => {
    const value = element("dd", tame(name));
    value.dir = "auto";
    return [element("dt", letter(side)), value];
  });
  at("models").replaceChildren(...lines);
  at("verdict-said").textContent = t("You said: {verdict}.", { verdict: pairInWords(ranks, strength) });
  at("receipt").textContent = t("Saved ✓");
  refresh();
  toEnd();
  at("revealed").focus({ preventScroll: true });
  announce(t("A was {left}, B was {right}.", { left: tame(models[0]), right: tame(models[1]) }));
}

// --- what is on the page when ---

// Why nothing can be said now; "" if it can.
function cannotSay() {
  if (turns.length && !lastTurn().whole) return t("A reply is missing: ask again, vote on what is there, or begin a new chat.");
  if (turns.length >= chat.most_turns) return t("This chat is as long as it can be: vote now.");
  return "";
}

function refresh() {
  const over = mode === "over";
  const canVote = turns.some((turn) => turn.whole);
  at("begin").hidden = turns.length > 0;
  at("revealed").hidden = at("after").hidden = !over;
  at("composer").hidden = over;
  at("verdict").hidden = over || !canVote;
  at("scale").disabled = mode !== "idle";
  at("stop").hidden = mode !== "writing";
  at("send").hidden = mode === "writing";
  at("send").setAttribute("aria-disabled", mode !== "idle" || !at("words").value.trim() || Boolean(cannotSay()));
  at("vote").setAttribute("aria-disabled", mode !== "idle" || Boolean(vote.missing));
  at("hint").textContent = mode === "writing" ? t("You can vote when both have answered.") : cannotSay() || vote.missing;
  for (const key of page().querySelectorAll("kbd[data-key]")) key.hidden = !singleKeys();
}

// The box is as high as its text, up to a third of the window.
function grow() {
  const box = at("words");
  box.style.height = "auto";
  if (box.value) box.style.height = `${Math.min(box.scrollHeight + 2, innerHeight / 3)}px`; // else one line
}

// --- what is filled in, kept in this browser ---

function keep() {
  if (!chat || mode === "over") return;
  vote.given.seconds += takeSeconds();
  store(draftName(), JSON.stringify({ words: at("words").value, vote: vote.given }));
  refresh();
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(draftName())) ?? {};
  } catch {
    return {};
  }
}

function stuck(problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  at("stuck-text").textContent = problem.message;
  view("stuck");
  if (problem.rule === "signed-out") location.assign(loginPage());
}

// --- keys ---

function keydown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
  if (page().dataset.view !== "work" || page().querySelector("dialog[open]")) return;
  const { target } = event;
  const key = keyOf(event);
  if (target.closest("textarea")) {
    if (key === "Escape") target.blur();
    if (key !== "Enter" || event.shiftKey || target.id !== "words") return;
    event.preventDefault();
    return void send();
  }
  if (target.closest("select, summary")) return;
  if (key === "Enter") {
    if (target.closest("a, button")) return;
    event.preventDefault();
    if (mode === "over") begin();
    else sendVote();
  } else if (singleKeys() && !event.repeat && !at("verdict").hidden) {
    if (/^[1-7]$/.test(key) && mode === "idle") vote.digit(Number(key));
    else if (key === "X" && mode === "idle") vote.toggleBad();
  }
}

const begin = () => start(true);

async function setUp(found) {
  await speak();
  translate(found);
  setPage(found);
  const clicks = { send, stop, vote: sendVote, retry: () => start(), "guidelines-open": openGuidelines };
  clicks["guidelines-close"] = () => at("guidelines").close();
  for (const [id, act] of Object.entries(clicks)) at(id).addEventListener("click", () => act());
  for (const one of page().querySelectorAll("[data-fresh]")) one.addEventListener("click", begin);
  at("words").addEventListener("input", () => (grow(), keep()));
  at("view-menu").replaceWith(viewMenu({ before: async () => keep() }));
  document.addEventListener("keydown", keydown);
  watchPresence();
  addEventListener("pagehide", keep);
  start();
}

whenDrawn(setUp);
