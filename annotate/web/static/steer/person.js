// What an owner can do about a member of the project. A change says which version of the member it is made to.

import { ask, button, field, make, showOnce, tick, when } from "./widgets.js";
import { t } from "../words.js";

export async function members({ api }) {
  const found = [];
  for (let after = 0; after !== null; ) {
    const page = await api("GET", `people?limit=200&after=${after}`);
    found.push(...page.people);
    after = page.after;
  }
  return found;
}

export async function changeMember({ api, say }, member, body) {
  const headers = { "If-Match": `"${member.version}"` };
  const changed = await api("PATCH", `people/${member.id}`, body, { headers });
  say(t("Saved ✓"));
  return changed;
}

// All that can be done with one member, as a panel that keeps itself up to date.
export async function actions(here, pseudonym) {
  let member = (await members(here)).find((one) => one.pseudonym === pseudonym);
  const panel = make("section.panel.actions", { "aria-label": t("What you can do") });
  const said = make("p.alert", { role: "alert", hidden: true });
  draw();
  return panel;

  async function attempt(what) {
    said.hidden = true;
    try {
      await what();
    } catch (problem) {
      if (problem.rule === "wrong-version") member = await here.api("GET", `people/${member.id}`);
      said.textContent = problem.message;
      said.hidden = false;
      draw(); // what is ticked is what stands
    }
  }

  function change(body) {
    return attempt(async () => {
      member = await changeMember(here, member, body);
      draw();
    });
  }

  function draw() {
    const facts = [
      member.login ? t("Login {login}", { login: member.login }) : t("Without a login"),
      member.consented_at ? t("agreed {when}", { when: when(member.consented_at) }) : null,
      member.removed_at ? t("removed {when}", { when: when(member.removed_at) }) : null,
    ];
    panel.replaceChildren(
      make("p.soft", {}, facts.filter(Boolean).join(" · ")),
      skills() ?? "",
      make(
        "div.buttons",
        {},
        member.role === "rater" ? admission() : null,
        member.login ? button(t("Link for a new password"), () => attempt(passwordLink)) : null,
        member.removed_at ? button(t("Bring back"), () => change({ removed: false })) : button(t("Remove"), () => attempt(remove)),
        button(t("Erase who they are"), () => attempt(erase), "quiet.danger"),
      ),
      said,
    );
  }

  function admission() {
    return member.qualified_at
      ? button(t("Send back to practice"), () => change({ qualified: false }))
      : button(t("Admit to real items"), () => change({ qualified: true }));
  }

  function skills() {
    if (!here.project.skills.length) return null;
    const boxes = here.project.skills.map((skill) => {
      const box = tick(member.skills.includes(skill));
      box.addEventListener("change", () => change({ skills: box.checked ? [...member.skills, skill] : member.skills.filter((one) => one !== skill) }));
      return field(skill, box);
    });
    return make("fieldset.inline", {}, make("legend", {}, t("Skills")), boxes);
  }

  async function passwordLink() {
    const made = await here.api("POST", `people/${member.id}/password-link`, {});
    await showOnce(t("Link for a new password"), t("Send it to {rater} alone, over a channel that others don't read. It works once, until {when}, and is shown this once.", { rater: member.rater, when: when(made.expires_at) }), made.url);
  }

  async function remove() {
    const text = t("They are out at once; the items that they have open go to others, and their answers stay. You can bring them back.");
    if (await ask(t("Remove {rater}?", { rater: member.rater }), { text, yes: t("Remove"), danger: true })) await change({ removed: true });
  }

  async function erase() {
    const text = t("Name, login, password, drafts, rationales, rewritten responses and words of skips are deleted. The ranks stay under a new pseudonym. There is no way back.");
    if (!(await ask(t("Erase who {rater} is?", { rater: member.rater }), { text, yes: t("Erase"), typed: member.rater, danger: true }))) return;
    const made = await here.api("DELETE", `people/${member.id}/identity`);
    here.say(made.scrubbed ? t("Erased.") : t("Erased; the database's files still hold traces, erase once more later."));
    here.go(here.to("raters"));
  }
}
