// What the page says about how things stand: progress, the end, trouble, and after practice what is right.

import { at, element, link, page, say, view } from "../dom.js";
import { inWords } from "./rating.js";
import { drawTurns } from "./read.js";
import { Problem, loginPage } from "../server.js";
import { tame } from "../text.js";
import { duration, later, money, t } from "../words.js";

let most = 0; // an older response may come after a newer one

export function drawProgress({ done, total }) {
  if (done < most) return;
  most = done;
  at("count").textContent = total ? t("{done} of {total}", { done, total }) : "";
  at("track").setAttribute("aria-valuemax", total);
  at("track").setAttribute("aria-valuenow", done);
  at("track").firstElementChild.style.width = total ? `${(100 * done) / total}%` : "0";
}

// Who is at work, and in which project (null: that is still to be chosen).
export function drawHead({ login, projects }, project) {
  at("login").textContent = login;
  at("to-owner").hidden = !projects.some((one) => one.role === "owner");
  if (!project) return;
  page().querySelector(".name").textContent = tame(project.name);
  document.title = `${project.name} – Concord`;
  at("simulated").hidden = !project.simulated;
}

// Somebody who rates in several projects chooses one.
export function drawProjects(projects) {
  const lines = projects.map((one) => {
    const line = element("li");
    line.append(link(one.name, `/rate/?project=${one.id}`));
    return line;
  });
  at("projects").replaceChildren(...lines);
  view("choose");
}

// What changes around a task that is shown.
export function drawTask({ training, revises }) {
  say("error");
  say("feedback");
  at("practice").hidden = !training;
  at("keep").hidden = revises === null;
  at("skip-open").hidden = revises !== null;
  at("submit-words").textContent = revises === null ? t("Submit") : t("Change");
  if (revises !== null) at("receipt").textContent = "";
  page().classList.remove("busy", "told");
  view("work");
}

// That an answer is stored, or, where there is no receipt, that an item is skipped; others may still wait.
export function drawReceipt(receipt, waits) {
  const words = !receipt ? t("Skipped ✓") : receipt.surplus ? t("Saved ✓ (late)") : t("Saved ✓");
  at("receipt").textContent = waits ? t("Saving…") : words;
}

export function drawStuck(problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  at("stuck-text").textContent = problem.message;
  view("stuck");
  if (problem.rule === "signed-out") location.assign(loginPage());
}

const ENDS = {
  "project-closed": [later("This project is closed"), later("It takes no more answers. Thank you for yours!")],
  "not-qualified": [
    later("No more practice"), later("You have seen all of the practice items. The owner of the project will be in touch."),
  ],
  arena: [later("Here you chat with two models"), later("You don't know which they are, and say which one is better.")],
  done: [later("All done"), later("You have answered all that there is for you. Thank you!")],
  nothing: [later("Nothing here yet"), later("There is nothing to rate for you yet. Come back later.")],
};

export function drawEnd(why, done) {
  const [title, words] = ENDS[why] ?? ENDS[done ? "done" : "nothing"];
  at("done-title").textContent = t(title);
  at("done-text").textContent = t(words);
  if (why === "arena") at("done-text").append(" ", link(t("Go to the arena"), `/arena/${location.search}`));
  at("done-sum").hidden = true; // it comes from the server
  say("done-notice");
}

// What a rater has done: [what, how much] as pairs of a list.
export function drawSum(box, { answers, active_seconds, earned, pay }) {
  const lines = [[t("Answers"), String(answers)], [t("Active time"), duration(active_seconds)]];
  if (earned !== null && pay) lines.push([t("Earned"), money(earned, pay.currency)]);
  box.replaceChildren(
    ...lines.map(([what, much]) => {
      const line = element("div");
      line.append(element("dt", what), element("dd", much));
      return line;
    }),
  );
  box.hidden = false;
}


// An answer was refused: the one on the screen, which the rater can give up, or one from before.
export function drawRefused(problem, giveUp = null) {
  const why = problem.message;
  if (giveUp) return say("error", t("Not saved. {why}", { why }), " ", link(t("Go on without it"), giveUp));
  say("banner", t("An answer from before was not saved. {why}", { why }), " ", link(t("All right"), () => say("banner")));
}

// What keeps the outbox from sending; null when nothing does.
export function drawTrouble(problem) {
  if (!problem) {
    say("banner");
  } else if (problem.rule === "signed-out") {
    say("banner", t("You are signed out. What you have done is kept."), " ", link(t("Sign in again"), loginPage()));
  } else if (problem.rule === "other-login") {
    say("banner", problem.message + " ", link(t("Reload"), location.href));
  } else {
    say("banner", t("Not saved yet – trying again. {why} Your answer is kept.", { why: problem.message }));
  }
}

export function drawFeedback({ ranks, correct, done, practice, passed, needed, over, explanation_html: why }) {
  const words = [
    element("b", correct ? t("Right ✓") : t("Not quite.")), " ",
    t("The right order: {order}.", { order: inWords(ranks) }), " ",
    over ? t("That was the practice; now the real items follow.") : standing(done, practice, passed, needed),
  ];
  if (why) {
    const box = element("div", "", "text why");
    drawTurns(box, [{ role: "owner", html: why }], false);
    words.push(box);
  }
  say("feedback", ...words);
  at("feedback").classList.toggle("wrong", !correct);
  page().classList.remove("busy");
  page().classList.add("told"); // there is nothing to do but go on
  at("hint").replaceChildren();
  at("submit-words").textContent = t("Go on");
  at("submit").setAttribute("aria-disabled", false);
}

function standing(done, practice, passed, needed) {
  return needed
    ? t("You have passed {passed} of {needed}.", { passed, needed })
    : t("Practice: {done} of {practice}.", { done, practice });
}
