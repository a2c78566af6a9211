// What raters ask about items, the open ones first; owners reply.

import { ago, area, field, make, note, oneAtATime } from "./widgets.js";
import { fill } from "./live.js";
import { t } from "../words.js";

export async function draw(box, here) {
  const body = make("div.questions");
  box.append(make("h1", {}, t("Questions")), body);
  const look = async () => {
    const questions = await all(here);
    const [open, done] = [questions.filter((one) => one.reply === null), questions.filter((one) => one.reply !== null)];
    badge(document.getElementById("part-questions"), open.length);
    fill(body, [
      ...(questions.length ? [] : [note(t("Nobody has asked anything."))]),
      ...open.map((one) => question(one, here, look)),
      ...(done.length ? [make("h2", { "data-key": "done" }, t("Answered")), ...done.map((one) => question(one, here, look))] : []),
    ]);
  };
  await look();
  here.every(look);
}

async function all({ api }) {
  const found = [];
  for (let after = 0; after !== null; ) {
    const page = await api("GET", `questions?limit=200&after=${after}`);
    found.push(...page.questions);
    after = page.after;
  }
  return found.sort((a, b) => (a.reply !== null) - (b.reply !== null) || b.asked_at - a.asked_at);
}

function question(one, here, look) {
  return make(
    "article.panel.question",
    { "data-key": `${one.question}-${one.reply === null ? "open" : "done"}` },
    make("p.soft", {}, make("b", { dir: "auto" }, one.rater), " · ", ago(one.asked_at), " · ", make("a", { href: here.to("items", String(one.item)), dir: "auto" }, one.key)),
    make("p.excerpt.soft", { dir: "auto" }, one.prompt),
    make("p.asked", { dir: "auto" }, one.text),
    one.reply !== null ? make("blockquote", { dir: "auto" }, one.reply) : here.owner ? replying(one, here, look) : note(t("No reply yet.")),
  );
}

function replying(one, here, look) {
  const words = area("", 2, { maxLength: 5000, required: true });
  const said = make("p.alert", { role: "alert", hidden: true });
  const send = async () => {
    try {
      await here.api("POST", `questions/${one.question}/reply`, { text: words.value });
      here.say(t("The rater sees it when they next look."));
      await look();
    } catch (problem) {
      said.textContent = problem.message;
      said.hidden = false;
    }
  };
  return make("form", { onsubmit: oneAtATime(send) }, field(t("Reply"), words), said, make("button.primary", {}, t("Send")));
}

// How many wait for a reply, beside the name of this part.
export function badge(link, open) {
  link?.querySelector(".number")?.remove();
  if (open) link?.append(make("span.number", { "aria-label": t("Open: {open}", { open }) }, String(open)));
}
