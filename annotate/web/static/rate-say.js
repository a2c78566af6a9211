// What the page says about how things stand: progress, the end, trouble, and after practice what is right.

import { at, element, link, page, say } from "./rate-dom.js";
import { inWords } from "./rate-item.js";

let most = 0; // an older response may come after a newer one

export function drawProgress({ done, total }) {
  if (done < most) return;
  most = done;
  at("count").textContent = total ? `${done} of ${total}` : "";
  at("track").setAttribute("aria-valuemax", total);
  at("track").setAttribute("aria-valuenow", done);
  at("track").firstElementChild.style.width = total ? `${(100 * done) / total}%` : "0";
}

export function drawEnd(why, done) {
  const [title, words] = {
    "project-closed": ["This project is closed", "It takes no more answers. Thank you for yours!"],
    "not-qualified": [
      "No more practice", "You have seen all of the practice items. The owner of the project will be in touch.",
    ],
    "nothing-left": done
      ? ["All done", `You have answered ${done === 1 ? "the one item there is" : `all ${done} items there are`} for you. Thank you!`]
      : ["Nothing here yet", "There is nothing to rate for you yet. Come back later."],
  }[why];
  at("done-title").textContent = title;
  at("done-text").textContent = words;
  say("done-notice");
}

// What keeps the outbox from sending; null when nothing does.
export function drawTrouble(problem, loginPage) {
  if (!problem) {
    say("banner");
  } else if (problem.rule === "signed-out") {
    say("banner", "You are signed out. What you have done is kept; ", link("sign in again", loginPage), " to go on.");
  } else if (problem.rule === "other-login") {
    say("banner", problem.message + " ", link("Reload", location.href));
  } else {
    say("banner", "Not saved yet – trying again. ", `${problem.message} Your answer is kept.`);
  }
}

export function drawFeedback({ ranks, correct, passed, needed }) {
  const through = passed >= needed;
  const passes = through ? "You have passed; now the real items follow." : `You have passed ${passed} of ${needed}.`;
  say("feedback", element("b", correct ? "Right ✓" : "Not quite."), ` The right order: ${inWords(ranks)}. ${passes}`);
  at("feedback").classList.toggle("wrong", !correct);
  page().classList.remove("busy");
  page().classList.add("told"); // there is nothing to do but go on
  at("hint").replaceChildren();
  at("submit-words").textContent = "Go on";
  at("submit").setAttribute("aria-disabled", false);
}
