// A rater's own things: what they have answered, done and earned, and what they have asked the owner.

import { ask, noDialog } from "./dialogs.js";
import { announce, at, element, say } from "../dom.js";
import { ALL_BAD, inWords, pairInWords } from "./rating.js";
import { drawSum } from "./say.js";
import { Problem } from "../server.js";
import { ago, t, when } from "../words.js";

const LOOK = 5 * 60 * 1000; // ms between two looks for replies
let call = null; // (method, path, body) within the project
let change = null; // what Change does: (answer) -> a promise of whether it is on the screen
const kept = new Map(); // assignment -> a question that was not sent

export function setUpMine(inProject, changeAnswer) {
  if (call) return;
  [call, change] = [inProject, changeAnswer];
  at("mine-open").hidden = false;
  at("mine-older").addEventListener("click", drawOlder);
  at("mine-close").addEventListener("click", () => at("mine").close());
  at("question").querySelector("[data-cancel]").addEventListener("click", () => at("question").close("cancel"));
  at("question-text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    at("question").querySelector("form").requestSubmit(at("question").querySelector("[value=ok]"));
  });
  lookForReplies();
  setInterval(() => document.hidden || lookForReplies(), LOOK);
}

// --- count, time, earnings; the badge of replies ---

async function lookForReplies() {
  try {
    drawBadge((await call("GET", "mine")).unread);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // the next look will tell
  }
}

function drawBadge(unread) {
  const before = at("mine-badge").textContent;
  at("mine-badge").hidden = !unread;
  at("mine-badge").textContent = unread ? String(unread) : "";
  const label = unread ? t("My answers, new replies: {unread}", { unread }) : t("My answers");
  at("mine-open").setAttribute("aria-label", label);
  if (unread && String(unread) !== before) announce(label);
}

// On the last screen.
export async function drawDone() {
  try {
    drawSum(at("done-sum"), await call("GET", "mine"));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // thanks alone will do
  }
}

// --- the panel ---

let before = null; // the number from which older answers are listed

export async function openMine() {
  if (!call || at("mine").open) return;
  say("mine-error");
  at("mine-list").replaceChildren();
  at("mine-questions").replaceChildren();
  before = null;
  at("mine").showModal();
  try {
    const asked = [call("GET", "mine"), call("GET", "questions/mine"), readAnswers()];
    const [mine, { questions }, listed] = await Promise.all(asked);
    drawSum(at("mine-sum"), mine); // all at once: nothing moves away from under a pointer
    drawAnswers(listed);
    at("mine-asked").hidden = !questions.length;
    at("mine-questions").replaceChildren(...questions.map(drawQuestion));
    if (mine.unread) await call("POST", "questions/read");
    drawBadge(0);
  } catch (problem) {
    fail(problem);
  }
}

const readAnswers = () => call("GET", `answers/mine?limit=20${before === null ? "" : `&before=${before}`}`);

function drawAnswers({ answers, older }) {
  at("mine-list").append(...answers.map(drawAnswer));
  at("mine-none").hidden = at("mine-list").children.length > 0;
  at("mine-older").hidden = older === null;
  before = older;
}

async function drawOlder() {
  const shown = at("mine-list").children.length;
  try {
    drawAnswers(await readAnswers());
    at("mine-list").children[shown]?.querySelector("button")?.focus();
  } catch (problem) {
    fail(problem);
  }
}

function fail(problem) {
  if (!(problem instanceof Problem)) throw problem;
  say("mine-error", problem.message);
}

function drawAnswer(answer) {
  const line = element("li");
  const prompt = element("p", answer.prompt, "begins");
  prompt.dir = "auto";
  const facts = element("p", "", "facts");
  const moment = element("time", ago(answer.submitted_at));
  moment.title = when(answer.submitted_at);
  facts.append(element("b", inShort(answer)), " · ", moment);
  if (answer.revision > 1) facts.append(" · ", t("changed"));
  if (answer.surplus) facts.append(" · ", t("late"));
  const words = element("div");
  words.append(prompt, facts);
  line.append(words);
  if (answer.can_revise) {
    const button = element("button", t("Change"), "quiet small");
    button.type = "button";
    button.setAttribute("aria-label", t("Change the answer to: {prompt}", { prompt: answer.prompt.slice(0, 60) }));
    button.addEventListener("click", async () => {
      const problem = await change(answer.answer);
      if (problem) say("mine-error", t("Not opened. {why}", { why: problem }));
      else {
        at("mine").close();
        at("prompt").focus({ preventScroll: true }); // and not the button that opened the list
      }
    });
    line.append(button);
  }
  return line;
}

// "B clearly", "B, then A and C"; and that all were bad.
function inShort({ ranks, strength, flags }) {
  const order = ranks.length === 2 ? pairInWords(ranks, strength) : inWords(ranks);
  return flags.includes(ALL_BAD) ? `${order} · ${t("All bad")}` : order;
}

function drawQuestion({ asked_at: askedAt, prompt, text, reply, replied_at: repliedAt, read }) {
  const line = element("li");
  const about = element("p", prompt, "begins");
  const asked = element("p", text, "asked");
  line.append(about, asked);
  if (reply === null) {
    line.append(element("p", t("Asked {when}; no reply yet.", { when: ago(askedAt) }), "facts"));
  } else {
    const answer = element("p", reply, "reply");
    const facts = element("p", t("Reply, {when}", { when: ago(repliedAt) }), "facts");
    if (!read) facts.prepend(element("b", t("New"), "new"), " ");
    line.append(answer, facts);
    answer.dir = "auto";
  }
  about.dir = asked.dir = "auto";
  return line;
}

// --- a question about an item ---

export async function askOwner(assignment) {
  const field = at("question-text");
  say("question-error");
  for (;;) {
    await noDialog(); // one may have been opened while this question was on its way
    field.value = kept.get(assignment) ?? "";
    const done = await ask("question");
    const text = field.value.trim();
    kept.set(assignment, text);
    if (done !== "ok" || !text) return;
    try {
      await call("POST", "questions", { assignment, text });
      kept.delete(assignment);
      at("receipt").textContent = t("Question sent ✓");
      return;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      await noDialog();
      say("question-error", t("Not sent. {why}", { why: problem.message }));
    }
  }
}
