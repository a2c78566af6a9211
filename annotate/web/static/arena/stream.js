// A turn as it comes: server-sent events over fetch, joined again where the connection breaks.

import { Problem, refusal, whoAmI } from "../server.js";
import { t } from "../words.js";

const SILENCE = 45000; // ms without a sign of life, of which the server gives one every ten seconds
const LONGEST_PAUSE = 15; // seconds between two tries

// Say `text` as turn `number` and hear its events: `on.again()` each time before they begin from the first one,
// `on.event(event)` for each, `on.trouble(problem)` while it can't be reached (null: it can). Resolves with the last event.
// Throws the Problem that the server answers with, if trying again does not help.
export async function hearTurn(path, number, text, on) {
  for (let tries = 0; ; tries++) {
    try {
      return await once(path, { turn: number, text }, on, tries > 0);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (!problem.passes && problem.rule !== "still-writing") throw problem;
      if (problem.passes) on.trouble(problem);
      const wait = problem.facts.retry_after ?? Math.min(LONGEST_PAUSE, 2 ** tries);
      await pause(Math.min(wait, LONGEST_PAUSE));
    }
  }
}

async function once(path, body, on, again) {
  const me = await whoAmI();
  const control = new AbortController();
  let patience = setTimeout(() => control.abort(), SILENCE);
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": me.csrf_token },
      body: JSON.stringify(body),
      signal: control.signal,
    });
    if (!answer.ok) throw refusal(answer.status, await answer.json().catch(() => ({})));
    if (again) on.trouble(null);
    on.again();
    let rest = "";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Problem("unreachable", t("The connection was lost."));
      clearTimeout(patience);
      patience = setTimeout(() => control.abort(), SILENCE);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const one of events) {
        if (!one.startsWith("data: ")) continue;
        const event = JSON.parse(one.slice(6));
        if (event.done) return event;
        on.event(event);
      }
    }
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem("unreachable", t("The server can't be reached."));
  } finally {
    clearTimeout(patience);
    control.abort();
  }
}

const pause = (seconds) =>
  new Promise((resolve) => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener("online", go);
      resolve();
    };
    const timer = setTimeout(go, 1000 * seconds);
    addEventListener("online", go);
  });
