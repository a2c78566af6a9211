// The rater's page: fetch an item from the API, let the rater rank it, submit, show the next.
//
// The HTML of prompts and responses was cleaned on the server (annotate/api/render.py); everything else goes in as
// text. A rating is kept in localStorage until the server says that it is stored.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SCALE = [
  [-3, "A much better"], [-2, "A clearly"], [-1, "A slightly"], [0, "Same"],
  [1, "B slightly"], [2, "B clearly"], [3, "B much better"],
];
const PLAIN_SCALE = [[-1, "A better"], [0, "Same"], [1, "B better"]];
const STRENGTH = [[1, "slightly better"], [2, "clearly better"], [3, "much better"]];

let root;
const at = (id) => root.querySelector("#" + id);
let csrf = "";
let project = null;
let task = null; // what the server gave: {assignment, prompt, responses, strength}
let rating = null; // {key, scale, ranks, strength, seconds} as far as it is given; kept as a draft
let current = 0; // the response that a digit key ranks; -1 when all have a rank
let busy = false;
let shownAt = null; // when the item last came into view, in ms

// --- talking to the server ---

class Problem extends Error {
  // `remedy` is "retry", "reload" or "sign in".
  constructor(sentence, remedy = "retry") {
    super(sentence);
    this.remedy = remedy;
  }
}

async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(30000),
    });
  } catch {
    throw new Problem("The server can't be reached.");
  }
  const value = await answer.json().catch(() => null);
  if (answer.ok && value !== null) return value;
  const said = value && typeof value.detail === "string" ? value.detail : `The server failed (${answer.status}).`;
  throw new Problem(said, answer.status === 401 ? "sign in" : answer.status < 500 ? "reload" : "retry");
}

const inProject = (path) => `/api/v1/projects/${project.id}/${path}`;

async function start() {
  view("loading");
  try {
    const me = await call("GET", "/api/v1/me");
    csrf = me.csrf_token;
    at("login").textContent = me.login;
    at("to-owner").hidden = !me.projects.some((one) => one.role === "owner");
    const rates = me.projects.filter((one) => one.role === "rater");
    const wanted = new URLSearchParams(location.search).get("project");
    project = rates.length === 1 ? rates[0] : rates.find((one) => String(one.id) === wanted) ?? null;
    if (!project) return choose(rates);
    root.querySelector(".name").textContent = project.name;
    document.title = `${project.name} – Concord`;
    at("simulated").hidden = !project.simulated;
    const guidelines = await call("GET", inProject("guidelines"));
    at("guidelines-text").innerHTML = guidelines.html;
    at("guidelines-open").hidden = guidelines.version === null;
    if (!guidelines.read) await firstReading(guidelines.version);
    show(await call("POST", inProject("next"), { holding: [] }));
  } catch (problem) {
    stuck(problem);
  }
}

function choose(rates) {
  at("projects").replaceChildren(
    ...rates.map((one) => {
      const line = element("li");
      line.append(link(`/rate/?project=${one.id}`, one.name));
      return line;
    }),
  );
  view("choose");
}

async function submit() {
  if (busy || !complete()) return;
  freeze(true); // what is on the screen stays what is being saved
  error(null);
  at("receipt").textContent = "Saving…";
  keep();
  try {
    const { scale, ranks, strength, key, seconds } = rating;
    const pair = task.responses.length === 2;
    const stored = await call("POST", inProject("answers"), {
      assignment: task.assignment,
      key,
      ranks: pair ? (scale < 0 ? [1, 2] : scale > 0 ? [2, 1] : [1, 1]) : ranks,
      strength: !task.strength ? null : pair ? scale : single(ranks) ? strength : 0,
      seconds: Math.round(seconds * 10) / 10,
    });
    localStorage.removeItem(draftName());
    show(stored.next);
    at("receipt").textContent = stored.receipt.surplus ? "Saved ✓ (late)" : "Saved ✓";
  } catch (problem) {
    at("receipt").textContent = "";
    if (!(problem instanceof Problem)) throw problem;
    error(problem);
  } finally {
    freeze(false);
  }
}

function freeze(on) {
  busy = on;
  root.classList.toggle("busy", on);
}

// --- showing ---

function view(name) {
  root.dataset.view = name;
}

function stuck(problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  at("stuck-text").textContent = problem.message;
  view("stuck");
  if (problem.remedy === "sign in") location.assign(loginPage());
}

// Say that the rating is not saved, and what helps; null says nothing.
function error(problem) {
  const box = at("error");
  box.hidden = !problem;
  if (!problem) return box.replaceChildren();
  if (problem.remedy === "sign in") {
    box.replaceChildren("Not saved. You are signed out. Your rating is kept; ", link(loginPage(), "sign in again."));
  } else if (problem.remedy === "reload") {
    box.replaceChildren(`Not saved. ${problem.message} `, link(location.href, "Reload"));
  } else {
    box.replaceChildren(`Not saved. ${problem.message} Your rating is kept; press Enter to try again.`);
  }
}

function link(href, text) {
  const made = element("a", text);
  made.href = href;
  return made;
}

const loginPage = () => "/login?next=" + encodeURIComponent(location.pathname + location.search);

function show(next) {
  const { done, total } = next.progress;
  at("count").textContent = total ? `${done} of ${total}` : "";
  at("track").setAttribute("aria-valuemax", total);
  at("track").setAttribute("aria-valuenow", done);
  at("track").firstElementChild.style.width = total ? `${(100 * done) / total}%` : "0";
  error(null);
  task = next.task;
  if (!task) {
    at("done-text").textContent = done
      ? `You have answered ${done === 1 ? "the one item" : `all ${done} items`} there ${done === 1 ? "is" : "are"} for you. Thank you!`
      : "There is nothing to rate for you yet. Come back later.";
    view("done");
    return;
  }
  rating = draft();
  current = rating.ranks.indexOf(null);
  shownAt = document.hidden ? null : performance.now();
  view("work");
  turns(at("prompt"), task.prompt, task.prompt.length > 1);
  at("prompt-box").classList.remove("unfolded");
  const cards = task.responses.map(card);
  at("responses").replaceChildren(...cards);
  at("responses").style.setProperty("--columns", task.responses.length === 3 ? 3 : 2);
  at("verdict").classList.toggle("pair", task.responses.length === 2);
  drawScale();
  refresh();
  fold();
  root.scrollTo(0, 0);
  at("prompt").scrollTo(0, at("prompt").scrollHeight); // the last turn of a conversation is the one that is answered
}

function fold() {
  const prompt = at("prompt");
  const unfolded = at("prompt-box").classList.contains("unfolded");
  at("fold").hidden = !unfolded && prompt.scrollHeight <= prompt.clientHeight + 1;
  at("fold").textContent = unfolded ? "Show less" : "Show all";
  at("fold").setAttribute("aria-expanded", unfolded);
}

function turns(box, messages, named) {
  box.replaceChildren(
    ...messages.map((message) => {
      const turn = element("div", "", "turn");
      if (named) turn.append(element("div", { user: "User", assistant: "Assistant", system: "System" }[message.role] ?? "Tool", "who"));
      const body = element("div", "", "body");
      body.innerHTML = message.html;
      body.dir = "auto";
      for (const one of body.querySelectorAll("a")) one.title = one.href;
      turn.append(body);
      return turn;
    }),
  );
}

function card(messages, index) {
  const letter = LETTERS[index] ?? String(index + 1);
  const box = element("section", "", "response");
  box.setAttribute("aria-label", `Response ${letter}`);
  const head = element("div", "", "head");
  head.append(element("span", letter, "letter"));
  if (task.responses.length > 2) {
    const options = task.responses.map((_, rank) => [rank + 1, String(rank + 1)]);
    const ranks = radios(`rank-${index}`, options, rating.ranks[index], `Rank of response ${letter}, 1 is best`, (rank) => {
      rating.ranks[index] = rank;
      current = rating.ranks.indexOf(null);
      changed();
    });
    ranks.classList.add("ranks");
    head.append(ranks);
  }
  const text = element("div", "", "text");
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", `Text of response ${letter}`);
  turns(text, messages, messages.length > 1);
  box.append(head, text);
  return box;
}

function drawScale() {
  const scale = at("scale");
  if (task.responses.length === 2) {
    const steps = task.strength ? SCALE : PLAIN_SCALE;
    const row = radios("scale", steps, rating.scale, "Which response is better?", (value) => {
      rating.scale = value;
      changed();
    }, true);
    row.classList.add("scale");
    scale.replaceChildren(row);
  } else if (task.strength) {
    const row = element("div", "", "over");
    row.append(element("span", "Best over second:"));
    row.append(radios("strength", STRENGTH, rating.strength, "How much better is the best than the second?", (value) => {
      rating.strength = value;
      changed();
    }, true));
    scale.replaceChildren(row);
  } else {
    scale.replaceChildren();
  }
}

function radios(name, options, value, label, choose, keyed = false) {
  const row = element("div", "", "steps");
  row.setAttribute("role", "radiogroup");
  row.setAttribute("aria-label", label);
  options.forEach(([option, words], index) => {
    const step = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name, value: option, checked: option === value });
    input.addEventListener("change", () => choose(option));
    step.append(input);
    if (keyed) step.append(element("kbd", String(index + 1)));
    step.append(element("span", words));
    row.append(step);
  });
  return row;
}

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

// --- the rating ---

const single = (ranks) => ranks.filter((rank) => rank === 1).length === 1;
const ranked = () => rating.ranks.every((rank) => rank !== null);

function complete() {
  if (!task) return false;
  if (task.responses.length === 2) return rating.scale !== null;
  return ranked() && rating.ranks.includes(1) && (!task.strength || !single(rating.ranks) || rating.strength !== null);
}

// What is still missing, and how to give it by key (which narrow screens leave out).
function hint() {
  if (task.responses.length === 2) {
    return rating.scale === null ? ["Which one is better?", ` Keys 1 to ${task.strength ? 7 : 3} choose.`] : ["", ""];
  }
  const last = task.responses.length;
  if (!ranked()) return ["Rank each response; 1 is best, ties are fine.", ` Keys 1 to ${Math.min(last, 9)} rank ${LETTERS[current]}, letters move.`];
  if (!rating.ranks.includes(1)) return ["At least one response must have rank 1.", ""];
  if (!complete()) return ["How much better is the best than the second?", " Keys 1 to 3 choose."];
  return ["", ""];
}

function changed() {
  keep();
  refresh();
}

function refresh() {
  const pair = task.responses.length === 2;
  const asksStrength = !pair && task.strength;
  at("scale").disabled = asksStrength && !(ranked() && single(rating.ranks));
  [...at("responses").children].forEach((box, index) => {
    const best = pair ? rating.scale !== null && (index === 0 ? rating.scale < 0 : rating.scale > 0) : rating.ranks[index] === 1;
    box.classList.toggle("best", best);
    box.classList.toggle("current", !pair && index === current && !complete());
  });
  const [words, keys] = hint();
  at("hint").replaceChildren(words, element("span", keys, "keys"));
  at("submit").setAttribute("aria-disabled", !complete());
}

const draftName = () => `concord:draft:${project.id}:${task.assignment}`;

function draft() {
  const fresh = {
    key: crypto.getRandomValues(new Uint32Array(4)).join("-"),
    scale: null, ranks: task.responses.map(() => null), strength: null, seconds: 0,
  };
  try {
    const kept = JSON.parse(localStorage.getItem(draftName()));
    return kept && kept.ranks.length === task.responses.length ? kept : fresh;
  } catch {
    return fresh;
  }
}

function keep() {
  if (!task) return;
  if (shownAt !== null) {
    const now = performance.now();
    rating.seconds += (now - shownAt) / 1000;
    shownAt = now;
  }
  try {
    localStorage.setItem(draftName(), JSON.stringify(rating));
  } catch {
    // a browser that stores nothing loses only the draft
  }
}

function look() {
  if (document.hidden) {
    keep();
    shownAt = null;
  } else if (task) {
    shownAt = performance.now();
  }
}

// --- guidelines ---

function firstReading(version) {
  const dialog = at("guidelines");
  const close = at("guidelines-close");
  close.textContent = "I have read them, start";
  view("loading");
  dialog.showModal();
  at("guidelines-text").focus();
  return new Promise((resolve, reject) => {
    const stay = () => dialog.showModal(); // Escape closes a dialog; this one comes back
    dialog.addEventListener("close", stay);
    close.addEventListener("click", async () => {
      dialog.removeEventListener("close", stay);
      close.textContent = "Close";
      try {
        resolve(await call("POST", inProject("guidelines/read"), { version }));
      } catch (problem) {
        reject(problem);
      }
    }, { once: true });
  });
}

// --- keys ---

function keydown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (root.dataset.view !== "work" || root.querySelector("dialog[open]")) return;
  const target = event.target;
  const radio = target.matches("input[type=radio]");
  if (busy) {
    if (radio) event.preventDefault();
    return;
  }
  if (!radio && target.closest("input, textarea, select, [contenteditable]")) return;
  if (event.key === "Enter") {
    if (target.closest("a, button") && target.id !== "submit") return;
    event.preventDefault();
    submit();
  } else if (/^[1-9]$/.test(event.key)) {
    digit(Number(event.key));
  } else if (task.responses.length > 2) {
    const index = LETTERS.indexOf(event.key.toUpperCase());
    if (event.key.length !== 1 || index < 0 || index >= task.responses.length) return;
    current = index;
    at("responses").children[index].scrollIntoView({ block: "nearest" });
    refresh();
  }
}

function digit(number) {
  let name = "scale";
  if (task.responses.length > 2) {
    const asks = task.strength && ranked() && single(rating.ranks) && current === -1;
    name = asks ? "strength" : `rank-${current}`;
  }
  const input = root.querySelectorAll(`input[name="${name}"]`)[number - 1];
  if (!input || input.matches(":disabled")) return;
  input.checked = true;
  input.dispatchEvent(new Event("change"));
}

// --- begin, when Gradio has drawn the page ---

function begin(found) {
  root = found;
  at("submit").addEventListener("click", submit);
  at("retry").addEventListener("click", start);
  at("look-again").addEventListener("click", start);
  at("guidelines-open").addEventListener("click", () => at("guidelines").showModal());
  at("guidelines-close").addEventListener("click", () => at("guidelines").close());
  at("fold").addEventListener("click", () => {
    at("prompt-box").classList.toggle("unfolded");
    fold();
  });
  document.addEventListener("keydown", keydown);
  document.addEventListener("visibilitychange", look);
  addEventListener("resize", () => task && root.dataset.view === "work" && fold());
  start();
}

const drawn = () => document.querySelector("#concord");
if (drawn()) {
  begin(drawn());
} else {
  const watcher = new MutationObserver(() => {
    if (!drawn()) return;
    watcher.disconnect();
    begin(drawn());
  });
  watcher.observe(document, { childList: true, subtree: true });
}
