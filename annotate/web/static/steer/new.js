// A new project from a form and a file. What is typed is kept in this tab until the project is there.

import { area, button, field, input, make } from "./widgets.js";
import { filePicker } from "./file.js";
import { settingsForm, withPreview } from "./form.js";
import { t } from "../words.js";

const KEPT = "concord:new-project";

// Markdown as the server renders it: as the prompt of an item, so that there is one way from text to HTML.
export function markdown(call) {
  return async (text) => {
    const lines = JSON.stringify({ id: "text", prompt: text, responses: ["-", "–"] });
    const { items } = await call("POST", "/api/v1/projects/preview", { lines, mask: [] });
    return items[0]?.prompt.at(-1).html ?? null;
  };
}

export async function draw(box, here) {
  const { call } = here;
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  const showMarkdown = markdown(call);
  const name = input(kept.name, { maxLength: 100, required: true, autocomplete: "off", dir: "auto" });
  const guidelines = area(kept.guidelines, 10, { maxLength: 200000 });
  const form = settingsForm(kept.settings ?? {}, { fresh: true, showMarkdown });
  const file = filePicker({ call, mask: () => form.read().mask });
  const said = make("div.said", { "aria-live": "polite" });
  const go = make("button.primary", {}, t("Make the project"));

  const more = make("details.more", { open: Boolean(kept.open) }, make("summary", {}, t("What raters are asked, pay, checks, consent")), form.node);
  const whole = make(
    "form.new",
    {
      novalidate: true,
      oninput: () => keep(),
      onsubmit: (event) => {
        event.preventDefault();
        if (!whole.checkValidity()) {
          const wrong = whole.querySelector(":invalid:not(fieldset)");
          if (wrong.closest("details")) wrong.closest("details").open = true;
          return wrong.reportValidity();
        }
        make_();
      },
    },
    make(
      "section.panel",
      {},
      field(t("Name"), name),
      withPreview(t("Guidelines (Markdown)"), guidelines, showMarkdown, t("Every rater reads them first. Say what “better” means, with examples.")),
    ),
    make("section.panel", {}, make("h2", {}, t("Items")), file.node),
    make("section.panel", {}, more),
    make("div.send", {}, said, go),
  );
  box.append(make("h1", {}, t("New project")), whole);

  let made = false; // from then on nothing is to be typed any more

  function keep() {
    if (made) return;
    const values = { name: name.value, guidelines: guidelines.value, settings: form.read(), open: more.open };
    sessionStorage.setItem(KEPT, JSON.stringify(values));
  }

  // Two steps: the project, then its items. If the second is refused, the first stands and the second can be tried again.
  async function make_() {
    go.disabled = true;
    said.replaceChildren(make("p.soft", {}, t("Making the project…")));
    try {
      const settings = form.read();
      const body = { ...settings, name: name.value.trim(), guidelines: guidelines.value.trim() ? guidelines.value : null };
      const project = await call("POST", "/api/v1/projects", body);
      made = true;
      sessionStorage.removeItem(KEPT);
      await fill(project);
    } catch (problem) {
      said.replaceChildren(make("p.alert", { role: "alert" }, problem.message));
      go.disabled = false;
    }
  }

  async function fill(project) {
    const open = `#/projects/${project.id}/overview`;
    here.me.projects.push({ id: project.id, name: project.name, role: "owner", simulated: project.simulated });
    if (!file.text()) return here.go(open);
    said.replaceChildren(make("p.soft", {}, t("Importing the items…")));
    try {
      const made = await importItems(call, project.id, file.text(), file.format());
      here.say(t("The project is there. Items: {items}.", { items: made.items }));
      here.go(open);
    } catch (problem) {
      said.replaceChildren(
        make("p.alert", { role: "alert" }, t("The project is there, but its items were refused. {why}", { why: problem.message })),
        make("p", {}, t("Mend the file, choose it again above, and try again; or open the project and add items later.")),
        make("div.buttons", {}, button(t("Try again"), () => fill(project), "primary"), make("a.quiet", { href: open }, t("Open the project"))),
      );
      go.hidden = true;
    }
  }
}

// All items of a file, or none; `format` is another tool's, or "".
export function importItems(call, project, text, format = "") {
  const headers = { "Content-Type": "application/x-ndjson" };
  const as = format ? `?format=${encodeURIComponent(format)}` : "";
  return call("POST", `/api/v1/projects/${project}/items${as}`, text, { headers, seconds: 600 });
}
