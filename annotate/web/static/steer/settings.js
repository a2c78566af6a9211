// Everything that can change about a project: its settings, guidelines, whether it is open, and who is told of events.

import { area, ago, ask, button, field, input, make, note, oneAtATime, rendered, showOnce, table, tick } from "./widgets.js";
import { settingsForm, withPreview } from "./form.js";
import { markdown } from "./new.js";
import { later, t } from "../words.js";

const EVENTS = ["answer.stored", "item.skipped", "project.changed", "export.made", "question.asked"];
const WORDS = {
  overlap: later("Answers for each item"), practice: later("Practice items for a new rater"), gold_rate: later("Checks among real items, in percent"),
  qualify: later("To pass before real items"), dimensions: later("Ratings per dimension"), rationale: later("A reason in the rater's words"),
  edit: later("Let raters rewrite the best response"), spans: later("Let raters mark good and bad passages"), all_bad: later("Ties for the worst: offer “All bad”"),
  mask: later("Hide these words in responses, one a line"), pay: later("Pay"), consent: later("What raters must agree to (Markdown)"),
  warnings: later("Content warnings by tag"), skills: later("Skills, one a line"), closed: later("closed"),
  sure: later("Certain enough, in percent"), hold_back: later("Hold back what raters differ on more than, in percent"),
};

export async function draw(box, here) {
  box.append(
    make("div.head", {}, make("h1", {}, t("Settings")), closing(here)),
    await guidelines(here),
    changing(here),
    await webhooks(here),
  );
}

// --- open and closed ---

function closing(here) {
  const { closed, version } = here.project;
  const change = async () => {
    const text = closed ? t("Raters are given items again.") : t("Raters are given nothing more. What comes in late is kept and paid, not counted.");
    if (!(await ask(closed ? t("Open the project again?") : t("Close the project?"), { text, yes: closed ? t("Open again") : t("Close") }))) return;
    await here.api("PATCH", "", { closed: !closed }, { headers: { "If-Match": `"${version}"` } }).catch((problem) => here.say(problem.message));
    await here.again();
  };
  return button(closed ? t("Open again") : t("Close the project"), change);
}

// --- guidelines ---

async function guidelines(here) {
  const { guideline } = here.project;
  const now = guideline ? await here.api("GET", `guidelines/${guideline}`) : { text: "", html: "" };
  const words = area(now.text, 12, { maxLength: 200000 });
  const said = make("p", { role: "status" });
  const publish = make("button.primary", { disabled: true }, t("Put the new version in force"));
  words.addEventListener("input", () => (publish.disabled = !words.value.trim() || words.value === now.text));
  const send = async () => {
    try {
      await here.api("POST", "guidelines", { text: words.value });
      here.say(t("The new guidelines are in force."));
      await here.again();
    } catch (problem) {
      said.className = "alert";
      said.textContent = problem.message;
    }
  };
  return make(
    "form.panel",
    { onsubmit: oneAtATime(send) },
    make("h2", {}, t("Guidelines")),
    note(guideline ? t("Version {version} is in force. A new one must be read by every rater before the next item; each answer says under which version it was given.", { version: guideline }) : t("There are none yet. Raters read them before the first item.")),
    guideline ? make("details", {}, make("summary", {}, t("As raters read them")), make("div.text", {}, rendered(now.html))) : null,
    make("details", { open: !guideline }, make("summary", {}, t("Write a new version")), withPreview(t("Guidelines (Markdown)"), words, markdown(here.call)), said, publish),
  );
}

// --- settings ---

function changing(here) {
  let project = here.project;
  let form = settingsForm(project, { fresh: false, showMarkdown: markdown(here.call) });
  const said = make("div", { role: "status" });
  const save = make("button.primary", {}, t("Save the settings"));
  const whole = make(
    "form.panel.changing",
    {
      oninput: () => whole.toggleAttribute("data-unsaved", Object.keys(changes()).length > 0),
      onsubmit: (event) => {
        event.preventDefault();
        send();
      },
    },
    make("h2", {}, t("Settings")),
    form.node,
    said,
    save,
  );
  return whole;

  function changes() {
    const values = form.read();
    return Object.fromEntries(Object.entries(values).filter(([name, value]) => !same(value, project[name])));
  }

  async function send() {
    const body = changes();
    if (!Object.keys(body).length) return said.replaceChildren(note(t("Nothing has changed.")));
    try {
      project = await here.api("PATCH", "", body, { headers: { "If-Match": `"${project.version}"` } });
      whole.removeAttribute("data-unsaved");
      said.replaceChildren(make("p.done", {}, t("Saved ✓")));
    } catch (problem) {
      if (problem.rule === "wrong-version") await conflict(body);
      else said.replaceChildren(make("p.alert", {}, problem.message));
    }
  }

  // Somebody else has saved meanwhile: say what differs, and let the owner choose.
  async function conflict(mine) {
    const before = project;
    const theirs = await here.api("GET", "");
    const changed = Object.keys(WORDS).filter((name) => !same(theirs[name], before[name]));
    const lines = changed.map((name) => make("li", {}, make("b", {}, t(WORDS[name])), ": ", shown(before[name]), " → ", shown(theirs[name])));
    const keep = button(t("Save mine on top"), () => {
      project = theirs;
      for (const name of changed) if (!(name in mine)) project = { ...project, [name]: theirs[name] };
      send_(mine);
    });
    const take = button(t("Take theirs"), () => {
      project = theirs;
      const fresh = settingsForm(project, { fresh: false, showMarkdown: markdown(here.call) });
      form.node.replaceWith(fresh.node);
      form = fresh;
      whole.removeAttribute("data-unsaved");
      said.replaceChildren();
    });
    const text = lines.length ? t("Somebody has changed this meanwhile:") : t("Somebody has changed the project meanwhile, but none of these settings.");
    said.replaceChildren(make("div.alert.mild", {}, make("p", {}, text), make("ul", {}, lines), make("div.buttons", {}, keep, take)));
  }

  // Only what this owner has changed goes on top of what the other one saved.
  async function send_(mine) {
    try {
      project = await here.api("PATCH", "", mine, { headers: { "If-Match": `"${project.version}"` } });
      whole.removeAttribute("data-unsaved");
      here.say(t("Saved ✓"));
      await here.again();
    } catch (problem) {
      if (problem.rule === "wrong-version") await conflict(mine);
      else said.replaceChildren(make("p.alert", {}, problem.message));
    }
  }
}

const same = (one, other) => JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));

// Objects by the order of their keys, which means nothing.
function sorted(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return Array.isArray(value) ? value.map(sorted) : value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

function shown(value) {
  if (value === null || value === undefined || value === "") return t("nothing");
  if (typeof value === "boolean") return value ? t("yes") : t("no");
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > 100 ? text.slice(0, 100) + "…" : text;
}

// --- webhooks ---

async function webhooks(here) {
  const { webhooks: hooks } = await here.api("GET", "webhooks");
  const url = input("", { type: "url", required: true, maxLength: 2000, placeholder: "https://…" });
  const boxes = EVENTS.map((event) => [event, tick(event === "answer.stored")]);
  const said = make("p.alert", { role: "alert", hidden: true });
  const add = async () => {
    said.hidden = true;
    try {
      const events = boxes.filter(([, box]) => box.checked).map(([name]) => name);
      const made = await here.api("POST", "webhooks", { url: url.value, events });
      await showOnce(t("Secret of the webhook"), t("With it the other end checks that a delivery comes from here. It is shown this once."), made.secret);
      await here.again();
    } catch (problem) {
      said.textContent = problem.message;
      said.hidden = false;
    }
  };
  const remove = async (hook) => {
    if (!(await ask(t("Remove this webhook?"), { text: hook.url, yes: t("Remove"), danger: true }))) return;
    await here.api("DELETE", `webhooks/${hook.id}`);
    await here.again();
  };
  const columns = [
    { key: "url", label: t("Address"), cell: (hook) => make("code", {}, hook.url) },
    { key: "events", label: t("Events"), cell: (hook) => hook.events.join(", ") },
    { key: "last", label: t("Last delivery"), cell: (hook) => delivery(hook, here) },
    { key: "remove", label: t("Remove"), cell: (hook) => button(t("Remove"), () => remove(hook)) },
  ];
  const choice = make("fieldset.inline", {}, make("legend", {}, t("Events")), boxes.map(([event, box]) => field(event, box)));
  const form = make("form", { onsubmit: oneAtATime(add) }, field(t("Address"), url), choice, said, make("button.quiet", {}, t("Add")));
  return make(
    "section.panel",
    {},
    make("h2", {}, t("Webhooks")),
    hooks.length ? table(t("Webhooks"), columns, hooks) : note(t("No program is told of events.")),
    make("details", {}, make("summary", {}, t("Tell a program of events")), form),
  );
}

function delivery(hook, here) {
  const cell = make("span", {}, "…");
  here.api("GET", `webhooks/${hook.id}/deliveries?limit=1`).then(
    ({ deliveries: [last] }) => {
      if (!last) cell.textContent = t("none yet");
      else if (last.delivered_at) cell.textContent = t("arrived {when}", { when: ago(last.delivered_at) });
      else cell.textContent = last.error ?? t("waiting");
    },
    (problem) => (cell.textContent = problem.message),
  );
  return cell;
}
