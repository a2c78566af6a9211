// One item: read it as raters do, decide about it blind, and only then see what raters said. Its priority and overlap.

import { dotPicture } from "./charts.js";
import { radios } from "../dom.js";
import { dense, inWords, letter, pairInWords, pairRanks, pairSteps, single, strengthSteps } from "../rate/rating.js";
import { area, button, field, make, note, number, turns, when } from "./widgets.js";
import { flagWords } from "./overview.js";
import { t } from "../words.js";

export async function drawItem(box, here, id) {
  const item = await here.api("GET", `items/${id}`);
  box.append(
    make("a.back", { href: here.to("items") }, t("All items")),
    make("h1", { dir: "auto" }, item.key),
    make("p.badges", {}, item.tags.map((tag) => make("span.badge", { dir: "auto" }, tag))),
  );
  if (item.gold) {
    box.append(note(t("A gold item: what is right about it is known.")), make("p", {}, make("a", { href: here.to("gold") }, t("Practice and checks"))));
    return;
  }
  const body = make("div.decide");
  box.append(body);
  const path = `items/${id}/decision`;
  drawDecision(body, here, path, await here.api("GET", path));
  if (here.owner) box.append(changing(here, item));
}

function drawDecision(body, here, path, view) {
  body.replaceChildren(
    make("div.prompt.text", { tabindex: "0", role: "region", "aria-label": t("Prompt") }, turns(view.prompt)),
    make("div.responses", {}, view.responses.map((response, index) => responseCard(view, response, index))),
    view.votes ? decided(body, here, path, view) : deciding(body, here, path, view),
  );
}

function responseCard(view, response, index) {
  const model = view.models?.[index];
  return make(
    "section.response",
    { "aria-label": t("Response {letter}", { letter: letter(index) }) },
    make(
      "div.head",
      {},
      make("b.letter", {}, letter(index)),
      model ? make("span.badge", { dir: "auto" }, model) : null,
      view.decided ? make("span.soft", {}, t("your rank: {rank}", { rank: view.decided.ranks[index] })) : null,
    ),
    make("div.text", { tabindex: "0", role: "region", "aria-label": t("Text of response {letter}", { letter: letter(index) }) }, turns(response)),
  );
}

// --- deciding, blind ---

function deciding(body, here, path, view, before = view.decided) {
  const size = view.responses.length;
  const pair = size === 2;
  const given = { scale: null, ranks: view.responses.map(() => null), strength: null };
  if (before) {
    const side = Math.sign(before.ranks[0] - before.ranks[1]);
    Object.assign(given, { ranks: [...before.ranks], strength: before.strength, scale: view.strength ? (before.strength ?? 0) : side });
  }
  const why = area(before?.rationale ?? "", 2, { maxLength: 20000 });
  const said = make("p.alert", { role: "alert", hidden: true });
  const submit = make("button.primary", { disabled: true }, t("Decide"));
  const ask = t("How much better is the best than the second?");
  const strengths = radios("decide-strength", strengthSteps(), given.strength, ask, (value) => set("strength", value));
  const over = make("div.over", { hidden: true }, make("span.soft", {}, t("Best over second:")), strengths);
  const scale = pair
    ? radios("decide-scale", pairSteps(view.strength), given.scale, t("Which response is better?"), (value) => set("scale", value), true)
    : make("div.rankings", {}, view.responses.map((_, index) => rankRow(index)));
  if (pair) scale.classList.add("scale");

  function rankRow(index) {
    const options = view.responses.map((_, rank) => [rank + 1, String(rank + 1)]);
    const label = t("Rank of response {letter}, 1 is best", { letter: letter(index) });
    const choose = (value) => set("ranks", given.ranks.with(index, value));
    const ranks = radios(`decide-rank-${index}`, options, given.ranks[index], label, choose);
    return make("div.rank", {}, make("b.letter", {}, letter(index)), ranks);
  }

  const asksStrength = () => !pair && view.strength && !given.ranks.includes(null) && single(given.ranks);
  const complete = () => (pair ? given.scale !== null : !given.ranks.includes(null) && (!asksStrength() || given.strength !== null));

  function set(name, value) {
    given[name] = value;
    over.hidden = !asksStrength();
    submit.disabled = !complete();
  }

  async function send(event) {
    event.preventDefault();
    submit.disabled = true;
    said.hidden = true;
    const ranks = pair ? pairRanks(given.scale) : dense(given.ranks);
    const strength = !view.strength ? null : pair ? given.scale : asksStrength() ? given.strength : 0;
    try {
      const now = await here.api("PUT", path, { ranks, strength, rationale: why.value.trim() || null });
      drawDecision(body, here, path, now);
      body.querySelector("h2")?.focus();
      here.say(t("Saved ✓"));
    } catch (problem) {
      said.textContent = problem.message;
      said.hidden = false;
      submit.disabled = false;
    }
  }
  set("strength", given.strength);
  return make(
    "form.panel.verdict",
    { onsubmit: send },
    make("h2", { tabindex: "-1" }, t("What do you say?")),
    note(t("You see the responses in an order of your own, without models. What raters said shows once you have decided.")),
    scale,
    over,
    field(t("Why, in a few words"), why),
    said,
    submit,
  );
}

// --- after it: the votes ---

function decided(body, here, path, view) {
  const again = button(t("Change my decision"), () => {
    const form = deciding(body, here, path, view);
    body.lastElementChild.replaceWith(form);
    form.querySelector("input")?.focus();
  });
  return make(
    "div.votes",
    {},
    make(
      "section.panel",
      {},
      make("h2", { tabindex: "-1" }, t("Your decision")),
      make("p", {}, verdict(view, view.decided)),
      view.decided.rationale ? make("p", { dir: "auto" }, view.decided.rationale) : null,
      again,
    ),
    make("section.panel", {}, make("h2", {}, t("What raters said")), picture(view), make("ul.said-by", {}, view.votes.map((vote) => voted(here, view, vote)))),
    view.others.length
      ? make(
          "section.panel",
          {},
          make("h2", {}, t("What others decided")),
          make("ul.said-by", {}, view.others.map((other) => voted(here, view, other))),
        )
      : null,
  );
}

const verdict = (view, { ranks, strength }) =>
  ranks.length === 2 ? pairInWords(ranks, view.strength ? strength : null) : inWords(ranks);

// How many chose each step of a pair's scale, or how often each response was the best of more.
function picture(view) {
  const wide = Math.max(260, Math.min(640, document.getElementById("content").clientWidth - 90));
  if (!view.votes.length) return note(t("Nobody has answered this item yet."));
  if (view.responses.length === 2) {
    const steps = pairSteps(view.strength);
    const place = (vote) => (view.strength && vote.strength !== null ? vote.strength : Math.sign(vote.ranks[0] - vote.ranks[1]));
    const values = steps.map(([step, label]) => ({ label: label.replace(" ", "\n"), count: view.votes.filter((vote) => place(vote) === step).length }));
    return dotPicture(wide, t("Votes"), view.votes.map((vote) => verdict(view, vote)).join("; "), values);
  }
  const best = view.responses.map((_, index) => ({ label: letter(index), count: view.votes.filter((vote) => vote.ranks[index] === 1).length }));
  return dotPicture(wide, t("How often each one is the best"), best.map((one) => `${one.label}: ${one.count}`).join(", "), best);
}

const rated = ([name, steps]) => `${name}: ${steps.map((step, index) => `${letter(index)} ${step}`).join(", ")}`;

function marked(span) {
  const good = span.mark === "good";
  const where = { letter: letter(span.response) };
  const said = good ? t("good, in {letter}", where) : t("bad, in {letter}", where);
  return make("p", {}, make(good ? "mark.good" : "mark.bad", { dir: "auto" }, span.text), " ", make("small.soft", {}, said));
}

function voted(here, view, vote) {
  const more = [
    vote.flags?.length ? make("p.badges", {}, vote.flags.map((flag) => make("span.badge.warn", {}, flagWords()[flag] ?? flag))) : null,
    vote.ratings ? make("p.soft", {}, Object.entries(vote.ratings).map(rated).join(" · ")) : null,
    vote.rationale ? make("blockquote", { dir: "auto" }, vote.rationale) : null,
    ...(vote.spans ?? []).map(marked),
    vote.edited
      ? make(
          "details",
          {},
          make("summary", {}, t("Rewrote {letter}", { letter: letter(vote.edited.response) })),
          make("pre.edited", { dir: "auto" }, vote.edited.text),
        )
      : null,
  ];
  const who = vote.rater ? make("a", { href: here.to("raters", vote.rater) }, vote.rater) : make("b", {}, vote.by);
  const moment = vote.at ? make("small.soft", {}, " · ", when(vote.at)) : null;
  const stands = vote.stands ? make("span.badge", {}, t("stands")) : null;
  return make("li", {}, make("p", {}, who, ": ", verdict(view, vote), moment, " ", stands), more);
}

// --- how urgent it is, and how many answers it wants ---

function changing(here, item) {
  const priority = number(item.priority, { step: "any", required: true });
  const overlap = number(item.overlap, { min: 1, max: 1000, step: 1, required: true });
  const said = make("p", { role: "status" });
  const send = async (event) => {
    event.preventDefault();
    try {
      const body = { priority: Number(priority.value), overlap: Number(overlap.value) };
      item = await here.api("PATCH", `items/${item.id}`, body, { headers: { "If-Match": `"${item.version}"` } });
      said.className = "done";
      said.textContent = t("Saved ✓");
    } catch (problem) {
      if (problem.rule === "wrong-version") item = await here.api("GET", `items/${item.id}`);
      said.className = "alert";
      said.textContent = problem.message;
    }
  };
  return make(
    "form.panel",
    { onsubmit: send },
    make("h2", {}, t("When and how often it is given out")),
    make("div.fields", {}, field(t("Priority"), priority, t("Higher ones come first.")), field(t("Answers wanted"), overlap, t("{filled} are there.", { filled: item.filled }))),
    make("button.quiet", {}, t("Save")),
    said,
  );
}
