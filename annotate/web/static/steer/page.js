// The owner's and the reviewer's page: which part is shown is in the address (#/projects/3/people), so that reload and the
// back button work. A part is a module with `draw(box, here)`, which fills an empty box from the API.
// The server decides who may do what; a reviewer's page has fewer parts, because the others would be refused.

import { whenDrawn } from "../dom.js";
import { viewMenu } from "../look.js";
import { Problem, call, loginPage, whoAmI } from "../server.js";
import { button, make } from "./widgets.js";
import * as agreement from "./agreement.js";
import * as exports from "./export.js";
import * as gold from "./gold.js";
import * as items from "./items.js";
import * as create from "./new.js";
import * as overview from "./overview.js";
import * as pay from "./pay.js";
import * as people from "./people.js";
import * as projects from "./projects.js";
import * as questions from "./questions.js";
import * as raters from "./raters.js";
import * as settings from "./settings.js";
import { later, speak, t, translate } from "../words.js";

const PARTS = [
  // address, words, what draws it, only for owners
  ["overview", later("Overview"), overview, false],
  ["items", later("Items"), items, false],
  ["questions", later("Questions"), questions, false],
  ["agreement", later("Agreement"), agreement, false],
  ["raters", later("Raters"), raters, false],
  ["people", later("People"), people, true],
  ["gold", later("Practice and checks"), gold, true],
  ["pay", later("Pay"), pay, true],
  ["export", later("Export"), exports, true],
  ["settings", later("Settings"), settings, true],
];
const LIVE = 15000; // ms between two looks at what is new

const at = (id) => document.getElementById(id);
let me = null;
let turn = 0; // counts what was opened: a part that is slow to load must not be drawn over the next one
let timer = null;
let saying = null;

async function start() {
  await speak();
  translate(at("concord"));
  at("tools").prepend(viewMenu());
  document.querySelector(".to-content").addEventListener("click", () => at("content").focus());
  const unsaved = () => at("content").querySelector("[data-unsaved]");
  let stays = null; // the address that somebody is sent back to, who would rather not leave what they have changed
  addEventListener("hashchange", (event) => {
    if (location.hash === stays) return void (stays = null);
    if (unsaved() && !confirm(t("What you have changed here is not saved. Leave it all the same?"))) {
      location.hash = stays = new URL(event.oldURL).hash;
    } else {
      open(true);
    }
  });
  addEventListener("beforeunload", (event) => {
    if (unsaved()) event.preventDefault();
  });
  await open(false);
}

async function open(moved) {
  const mine = ++turn;
  clearInterval(timer);
  for (const dialog of document.querySelectorAll("#concord dialog[open]")) dialog.close();
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first = "", id = "", name = "overview", ...rest] = path.split("/").map(decodeURIComponent);
  const box = make("section.part", { "aria-busy": "true" });
  let here = {};
  const loading = setTimeout(() => mine === turn && at("content").replaceChildren(make("p.soft", {}, t("Loading…"))), 300);
  try {
    me ??= await whoAmI();
    at("login").textContent = me.login;
    at("to-rate").hidden = !me.projects.some((one) => one.role === "rater");
    here = { me, rest, query: new URLSearchParams(query), call, go, say, again: () => open(false), every: () => {} };
    let part = projects;
    if (first === "new") part = create;
    if (first === "projects" && id) {
      const project = await call("GET", `/api/v1/projects/${Number(id)}`);
      Object.assign(here, { project, owner: project.role === "owner", ...within(project, mine, box) });
      part = (PARTS.find((one) => one[0] === name && (here.owner || !one[3])) ?? PARTS[0])[2];
    }
    await part.draw(box, here);
    if (mine !== turn) return;
    frame(here, name);
    box.removeAttribute("aria-busy");
    at("content").replaceChildren(box);
    if (moved) arrive(box);
  } catch (problem) {
    if (mine !== turn) return;
    if (here.project) frame(here, name);
    trouble(problem);
  } finally {
    clearTimeout(loading);
  }
}

// What a part of a project gets: calls within the project, its address, and something to do every 15 s while it is open.
function within(project, mine, box) {
  const base = `/api/v1/projects/${project.id}`;
  return {
    base,
    api: (method, path, body, more) => call(method, path ? `${base}/${path}` : base, body, more),
    to: (...path) => `#/projects/${project.id}/${path.map(encodeURIComponent).join("/")}`,
    every: (look) => {
      if (mine !== turn) return;
      timer = setInterval(async () => {
        if (document.hidden || document.querySelector("#concord dialog[open]") || !box.isConnected) return;
        const problem = await look().then(() => null, (problem) => problem); // the next look may succeed
        if (!problem || problem.rule === "signed-out") tellLogin(problem);
      }, LIVE);
    },
  };
}

// The bar above and the list of parts beside.
function frame(here, name) {
  const { project } = here;
  document.title = project ? `${project.name} – Concord` : "Concord";
  at("crumb").replaceChildren(
    ...(project ? [make("a", { href: `#/projects/${project.id}/overview`, dir: "auto" }, project.name)] : []),
    ...(project?.closed ? [make("span.badge.warn", {}, t("closed"))] : []),
    ...(project?.simulated ? [make("span.badge.warn", {}, t("simulated"))] : []),
  );
  const shown = project ? PARTS.filter((one) => here.owner || !one[3]) : [];
  const current = shown.some((one) => one[0] === name) ? name : "overview";
  at("parts").replaceChildren(
    ...shown.map(([part, words]) =>
      make("a", { href: here.to(part), "aria-current": part === current ? "page" : null, id: `part-${part}` }, t(words)),
    ),
  );
  at("parts").hidden = !project;
  at("parts").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  if (project) questions.badge(at("part-questions"), project.open_questions);
  at("concord").dataset.view = "ready";
}

// Where reading begins after a click on a link: at the part's heading.
function arrive(box) {
  at("content").scrollTop = 0;
  const heading = box.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}

function go(hash) {
  if (location.hash === hash) open(true);
  else location.hash = hash;
}

// Say something that is not seen elsewhere, such as that it is saved.
function say(words) {
  at("said").textContent = words;
  at("said").classList.remove("unseen");
  clearTimeout(saying);
  saying = setTimeout(() => at("said").classList.add("unseen"), 4000);
}

function trouble(problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  const box = make("section.part.trouble", { role: "alert" }, make("h1", {}, t("That did not work")));
  if (problem.rule === "signed-out") {
    box.append(...wayBack(problem));
  } else {
    const text = problem instanceof Problem ? problem.message : t("The page made a mistake. Reload it.");
    box.append(make("p", {}, text), button(t("Try again"), () => open(false), "primary"));
    box.append(" ", make("a", { href: "#/" }, t("All projects")));
  }
  at("concord").dataset.view = "ready";
  at("content").replaceChildren(box);
}

// A login that ends while something is shown (null: it is there again): what is filled in stays.
function tellLogin(problem) {
  const told = at("content").querySelector(":scope > .login-ended");
  if (!problem) told?.remove();
  else if (!told) at("content").prepend(make("section.part.trouble.login-ended", { role: "alert" }, wayBack(problem, "_blank")));
}

function wayBack({ message }, target = "") {
  return [make("p", {}, message), make("a.primary", { href: loginPage(), target }, t("Sign in"))];
}

whenDrawn(start);
