// What stands in front of the work: consent, guidelines and content warnings; and the dialogs of skip, flag and keys.

import { markNews } from "./differ.js";
import { at, element, page, view } from "../dom.js";
import { keyOf, singleKeys, useSingleKeys } from "./keys.js";
import { FLAGS } from "./rating.js";
import { drawTurns } from "./read.js";
import { later, t } from "../words.js";

const REASONS = [...FLAGS, ["other", later("Another reason")]];
let asking = null; // a welcome that is under way

// Let the rater agree and read what they must before rating. `optedOut` hears when they change what they want to see.
export function welcome(call, optedOut) {
  asking ??= pass(call, optedOut).finally(() => (asking = null));
  return asking;
}

async function pass(call, optedOut) {
  const facts = await call("GET", "guidelines");
  drawTurns(at("guidelines-text"), [{ role: "owner", html: facts.html }], false);
  at("guidelines-text").hidden = facts.version === null;
  at("guidelines-open").hidden = facts.version === null && !Object.keys(facts.warnings).length;
  const optOuts = new OptOuts(call, facts, optedOut);
  if (!facts.consented) {
    drawTurns(at("consent-text"), [{ role: "owner", html: facts.consent_html }], false);
    optOuts.drawIn("consent-warnings");
    view("consent");
    at("consent-text").focus();
    await click("agree");
    view("loading");
    await call("POST", "consent", { agreed: true, consent_hash: facts.consent_hash });
  }
  optOuts.drawIn("guidelines-warnings");
  tellChange(facts);
  if (!facts.read) await firstReading(call, facts.version);
}

// What is new in the guidelines since this rater last read them.
function tellChange({ read, before_html: before }) {
  const changed = !read && Boolean(before);
  at("guidelines-changed").hidden = !changed;
  if (!changed) return;
  const earlier = element("div");
  drawTurns(earlier, [{ role: "owner", html: before }], false);
  const gone = markNews(at("guidelines-text"), earlier).filter((text) => /[\p{L}\p{N}]/u.test(text)); // no lone full stops
  at("guidelines-gone").hidden = !gone.length;
  at("guidelines-gone-list").replaceChildren(...gone.map((text) => {
    const line = element("li", text);
    line.dir = "auto";
    return line;
  }));
}

export function openGuidelines() {
  if (at("guidelines-open").hidden || at("guidelines").open) return;
  at("guidelines").showModal();
  at("guidelines-text").focus();
}

export function openKeys() {
  for (const line of at("keys").querySelectorAll("[data-asked]")) line.hidden = at(line.dataset.asked).hidden;
  if (!at("keys").open) at("keys").showModal();
}

async function firstReading(call, version) {
  const dialog = at("guidelines");
  const close = at("guidelines-close");
  const stay = () => dialog.showModal(); // Escape closes a dialog; this one comes back
  close.textContent = t("I have read them, start");
  view("loading");
  if (!dialog.open) dialog.showModal();
  at("guidelines-text").focus();
  dialog.addEventListener("close", stay);
  await click("guidelines-close");
  dialog.removeEventListener("close", stay);
  dialog.close();
  close.textContent = t("Close");
  await call("POST", "guidelines/read", { version });
  tellChange({ read: true });
  CSS.highlights?.delete("differs-news");
}

const click = (id) => new Promise((resolve) => at(id).addEventListener("click", resolve, { once: true }));

// Content warnings by tag, each with a box to tick: what is ticked is not shown to this rater. Saved at every tick, one
// after the other.
class OptOuts {
  constructor(call, facts, changed) {
    Object.assign(this, { call, changed, warnings: Object.entries(facts.warnings), out: new Set(facts.opted_out), saved: Promise.resolve() });
  }

  drawIn(id) {
    const box = at(id);
    box.hidden = !this.warnings.length;
    const said = element("p", "", "said");
    said.setAttribute("role", "status");
    box.replaceChildren(element("legend", t("Some items may be hard to look at. Tick what you'd rather not be shown.")));
    for (const [tag, words] of this.warnings) box.append(this.#line(tag, words, said));
    box.append(said);
  }

  #line(tag, words, said) {
    const label = element("label");
    const tick = element("input");
    Object.assign(tick, { type: "checkbox", checked: this.out.has(tag) });
    const save = async () => {
      const out = new Set(this.out);
      if (tick.checked) out.add(tag);
      else out.delete(tag);
      try {
        await this.call("PUT", "opt-out", { tags: [...out] });
        this.out = out;
        said.textContent = t("Saved ✓");
        this.changed();
      } catch (problem) {
        tick.checked = !tick.checked;
        said.textContent = t("Not saved. {why}", { why: problem.message });
      }
    };
    tick.addEventListener("change", () => (this.saved = this.saved.then(save)));
    label.append(tick, element("span", words), element("small", tag));
    return label;
  }
}

// --- skip and flag: a list that digits choose from, and Enter ---

export function listChoices() {
  at("single-keys").checked = singleKeys();
  at("single-keys").addEventListener("change", () => useSingleKeys(at("single-keys").checked));
  fill("skip-reasons", "radio", REASONS);
  fill("flag-list", "checkbox", FLAGS);
  at("keys-close").addEventListener("click", () => at("keys").close());
  at("guidelines-open").addEventListener("click", openGuidelines);
  at("guidelines-close").addEventListener("click", () => at("guidelines").close());
  for (const id of ["skip", "flag"]) {
    at(id).addEventListener("keydown", (event) => choose(event, at(id)));
    at(id).querySelector("[data-cancel]").addEventListener("click", () => at(id).close("cancel"));
  }
}

function fill(id, type, choices) {
  at(id).replaceChildren(
    ...choices.map(([value, words], index) => {
      const label = element("label");
      const input = element("input");
      Object.assign(input, { type, name: id, value, required: type === "radio" });
      label.append(input, element("kbd", String(index + 1)), element("span", t(words)));
      return label;
    }),
  );
}

function choose(event, dialog) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.target.matches("textarea")) return;
  const key = keyOf(event);
  if (/^[1-9]$/.test(key)) {
    if (!singleKeys()) return;
    const input = dialog.querySelectorAll("input")[Number(key) - 1];
    if (!input) return;
    event.preventDefault();
    input.focus();
    input.click();
  } else if (key === "Enter" && event.target.matches("input")) {
    event.preventDefault();
    dialog.querySelector("form").requestSubmit(dialog.querySelector("[value=ok]"));
  }
}

// {reason, text}, or null if the rater thinks better of it.
export async function askWhy() {
  at("skip").querySelector("form").reset();
  if ((await ask("skip")) !== "ok") return null;
  const reason = at("skip").querySelector("input:checked").value;
  return { reason, text: at("skip-words").value.trim() || null };
}

// The flags that the rater ticks, or null if they think better of it.
export async function askFlags(flags) {
  for (const input of at("flag-list").querySelectorAll("input")) input.checked = flags.includes(input.value);
  if ((await ask("flag")) !== "ok") return null;
  return [...at("flag-list").querySelectorAll("input:checked")].map((input) => input.value);
}

// Resolves when no dialog is open.
export async function noDialog() {
  for (let open; (open = page().querySelector("dialog[open]")); ) {
    await new Promise((resolve) => open.addEventListener("close", resolve, { once: true }));
  }
}

let end = () => {}; // of the dialog before, whose close event may still be on its way

export function ask(id) {
  const dialog = at(id);
  end("cancel");
  dialog.returnValue = "cancel"; // what Escape leaves
  dialog.showModal();
  return new Promise((resolve) => {
    end = resolve;
    dialog.onclose = () => dialog.open || resolve(dialog.returnValue);
  });
}
