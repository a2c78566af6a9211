// Talking to the API: JSON there and back, and a Problem for everything that goes wrong.

import { t } from "./words.js";

let csrf = "";
let login = null;

// `rule` names what is against it, in the server's words or "unreachable", "failed" and "other-login" in ours.
export class Problem extends Error {
  constructor(rule, sentence, status = 0, facts = {}) {
    super(sentence);
    this.rule = rule;
    this.status = status;
    this.facts = facts;
  }

  // Whether the same request may well succeed a little later.
  get passes() {
    return this.rule === "unreachable" || this.status >= 500 || this.status === 429;
  }
}

// Who is signed in, by the server; keeps the token that changes need.
export async function whoAmI() {
  const me = await once("GET", "/api/v1/me");
  if (login !== null && me.login !== login) {
    throw new Problem("other-login", t("This browser is signed in as {login} by now; reload the page.", { login: me.login }));
  }
  login = me.login;
  csrf = me.csrf_token;
  return me;
}

// `body` goes as JSON, a string as it is. `more` may have `headers`, how many `seconds` it may take, and `file`: the answer
// is one, and is given as a Blob.
export async function call(method, path, body, more = {}) {
  try {
    return await once(method, path, body, more);
  } catch (problem) {
    if (problem.rule !== "csrf") throw problem;
    await whoAmI(); // signed in anew in another tab: there is a new token
    return once(method, path, body, more);
  }
}

async function once(method, path, body, { headers = {}, seconds = 30, file = false } = {}) {
  const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  let answer, value;
  try {
    answer = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf, ...headers },
      body: sent,
      keepalive: method !== "GET" && sent !== undefined && sent.length < 15000, // arrives though the page is closed
      signal: AbortSignal.timeout(1000 * seconds),
    });
    if (answer.ok && file) return await answer.blob();
    value = answer.status === 204 ? null : await answer.json().catch(() => undefined);
  } catch {
    throw new Problem("unreachable", t("The server can't be reached."));
  }
  if (answer.ok && value !== undefined) return value;
  throw refusal(answer.ok ? 502 : answer.status, value ?? {});
}

// The Problem that a problem document tells; `value` is empty where what came is none.
export function refusal(status, { rule = "failed", detail = t("The server failed ({status}).", { status }), ...facts }) {
  return new Problem(rule, String(detail), status, facts);
}

// Where to sign in, to come back here.
export const loginPage = () => "/login?next=" + encodeURIComponent(location.pathname + location.search + location.hash);

