// Who has which part in the project, and the links with which others may join.

import { ago, ask, button, count, field, make, note, number, oneAtATime, select, showOnce, table, tick, when } from "./widgets.js";
import { fill } from "./live.js";
import { changeMember, members } from "./person.js";
import { t } from "../words.js";

const roles = () => [["rater", t("rater")], ["reviewer", t("reviewer")], ["owner", t("owner")]];

export async function draw(box, here) {
  const [people, open] = await Promise.all([members(here), invitations(here)]);
  box.append(
    make("div.head", {}, make("h1", {}, t("People"))),
    inviting(here),
    make("h2", {}, t("Invitations")),
    open.length ? invited(open, here) : note(t("No invitation of the last month.")),
    make("h2", {}, t("Who is in the project")),
    list(people, here),
  );
}

async function invitations({ api }) {
  const found = [];
  for (let after = 0; after !== null; ) {
    const page = await api("GET", `invitations?limit=200&after=${after}`);
    found.push(...page.invitations);
    after = page.after;
  }
  return found.reverse();
}

function inviting(here) {
  const role = select("rater", roles());
  const days = number(7, { min: 1, max: 90, step: 1, required: true });
  const boxes = here.project.skills.map((skill) => [skill, tick(false)]);
  const said = make("p.alert", { role: "alert", hidden: true });
  const form = make(
    "form.panel.invite",
    {
      onsubmit: oneAtATime(async () => {
        said.hidden = true;
        try {
          const skills = boxes.filter(([, box]) => box.checked).map(([skill]) => skill);
          const made = await here.api("POST", "invitations", { role: role.value, skills, expires_in_hours: 24 * Number(days.value) });
          const text = t("Send it to one person, over a channel that others don't read: whoever has it can join. It works once, until {when}, and is shown this once.", { when: when(made.expires_at) });
          await showOnce(t("Invitation link"), text, made.url);
          await here.again();
        } catch (problem) {
          said.textContent = problem.message;
          said.hidden = false;
        }
      }),
    },
    make("h2", {}, t("Invite somebody")),
    make(
      "div.fields",
      {},
      field(t("As"), role, t("Raters answer. Reviewers read answers under pseudonyms and decide about items. Owners do everything.")),
      field(t("For how many days?"), days),
      boxes.length ? make("fieldset.inline", {}, make("legend", {}, t("Skills")), boxes.map(([skill, box]) => field(skill, box))) : null,
    ),
    said,
    make("button.primary", {}, t("Make a link")),
  );
  return form;
}

function invited(open, here) {
  const take = async (one) => {
    if (!(await ask(t("Take this invitation back?"), { text: t("Its link opens nothing any more."), yes: t("Take back") }))) return;
    await here.api("DELETE", `invitations/${one.id}`);
    await here.again();
  };
  const state = (one) => {
    if (one.used_at) return t("used {when}", { when: ago(one.used_at) });
    return one.expires_at * 1000 < Date.now() ? t("expired") : t("open until {when}", { when: when(one.expires_at) });
  };
  const columns = [
    { key: "made", label: t("Made"), cell: (one) => when(one.created_at) },
    { key: "role", label: t("As"), cell: (one) => new Map(roles()).get(one.role) + (one.skills.length ? ` (${one.skills.join(", ")})` : "") },
    { key: "state", label: t("State"), cell: state },
    { key: "take", label: t("Take back"), cell: (one) => (one.used_at || one.expires_at * 1000 < Date.now() ? "" : button(t("Take back"), () => take(one))) },
  ];
  return table(t("Invitations"), columns, open);
}

const sorting = { key: "rater", down: false };

function list(people, here) {
  const box = make("div.list");
  const said = make("p.alert", { role: "alert", hidden: true });
  const redraw = () => fill(box, [table(t("Who is in the project"), columns, people, { state: sorting, redraw, rowKey: (one) => one.pseudonym }), said]);
  const role = (one) => {
    const chosen = select(one.role, roles(), { "aria-label": t("Part of {rater}", { rater: one.rater }), disabled: !one.login });
    chosen.addEventListener("change", async () => {
      said.hidden = true;
      try {
        Object.assign(one, await changeMember(here, one, { role: chosen.value }));
      } catch (problem) {
        if (problem.rule === "wrong-version") Object.assign(one, await here.api("GET", `people/${one.id}`));
        said.textContent = problem.message;
        said.hidden = false;
      }
      chosen.value = one.role;
      redraw();
    });
    return chosen;
  };
  const columns = [
    { key: "rater", label: t("Person"), sort: (one) => one.rater, cell: (one) => make("a", { href: here.to("raters", one.pseudonym), dir: "auto" }, one.rater) },
    { key: "name", label: t("Name"), sort: (one) => one.name ?? "", cell: (one) => make("span", { dir: "auto" }, one.name ?? "") },
    { key: "pseudonym", label: t("Pseudonym"), cell: (one) => make("code", {}, one.pseudonym) },
    { key: "role", label: t("Part"), sort: (one) => one.role, cell: role },
    { key: "answers", label: t("Answers"), number: true, sort: (one) => one.answers, cell: (one) => count(one.answers) },
    { key: "state", label: t("State"), cell: (one) => (one.removed_at ? t("removed") : one.login ? "" : t("imported, no login")) },
  ];
  redraw();
  return box;
}
