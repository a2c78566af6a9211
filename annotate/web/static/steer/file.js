// Choosing or dropping a file of items, and what is in it: how many, the first ones as raters see them, and its first
// mistake with the line. The file itself is sent whole at the end.

import { count, make, newId, rendered, turns } from "./widgets.js";
import { t } from "../words.js";

const LOOKED_AT = 8000000; // characters that are sent for the preview

// {node, text(), look()}: `show(lines)` asks the server for a preview, `changed()` hears of another file.
export function filePicker({ show, changed = () => {} }) {
  let text = "";
  let name = "";
  const found = make("div.found", { "aria-live": "polite" });
  const chooser = make("input", { type: "file", accept: ".jsonl,.ndjson,.json,.txt", className: "unseen", id: newId("file"), onchange: () => take(chooser.files[0]) });
  const words = make("span", {}, t("Choose a .jsonl file, or drop it here"));
  const zone = make(
    "label.drop",
    {
      for: chooser.id,
      ondragover: (event) => {
        event.preventDefault();
        zone.classList.add("over");
      },
      ondragleave: () => zone.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        zone.classList.remove("over");
        take(event.dataTransfer.files[0]);
      },
    },
    words,
    chooser,
  );

  async function take(file) {
    if (!file) return;
    name = file.name;
    text = await file.text();
    chooser.value = ""; // so that the same file, once it is mended, is a choice again
    words.textContent = t("{name} – choose another", { name });
    await look();
    changed();
  }

  async function look() {
    if (!name) return;
    found.replaceChildren(make("p.soft", {}, t("Looking at the file…")));
    try {
      found.replaceChildren(...preview(await show(beginning(text)), text.length > LOOKED_AT));
    } catch (problem) {
      found.replaceChildren(make("p.alert", { role: "alert" }, problem.message));
    }
  }

  const example = make("details.example", {}, make("summary", {}, t("What the file looks like")), make("pre", { tabindex: "0" }, EXAMPLE));
  return { node: make("div.file", {}, zone, example, found), text: () => text, name: () => name, look };
}

const EXAMPLE = `{"id": "q17", "prompt": "What is a comet?", "responses": [{"text": "A ball of ice …", "model": "a"}, {"text": "A star …", "model": "b"}]}
{"id": "q18", "prompt": "Say hello.", "responses": ["Hello!", "Hi."], "gold": [1, 2], "explanation": "More polite."}`;

// Whole lines only, since half a line is no item.
function beginning(text) {
  return text.length <= LOOKED_AT ? text : text.slice(0, text.lastIndexOf("\n", LOOKED_AT) + 1);
}

// The answer of POST /projects/preview as elements.
export function preview({ count: items, items: first, problem }, cut = false) {
  const said = [];
  if (problem) said.push(make("p.alert", { role: "alert" }, problem));
  else if (cut) said.push(make("p.done", {}, t("Items in the part looked at: {items}. The rest is checked when it is imported.", { items: count(items) })));
  else said.push(make("p.done", {}, t("Items: {items}. No mistake found.", { items: count(items) })));
  if (first.length) {
    said.push(make("h3", {}, t("The first ones as raters see them")), ...first.map(sample));
  }
  return said;
}

// One item as raters see it, without the controls.
export function sample(item) {
  const letters = item.responses.map((_, index) => String.fromCharCode(65 + index));
  return make(
    "article.sample",
    {},
    make("div.prompt.text", {}, turns(item.prompt)),
    make(
      "div.responses",
      {},
      item.responses.map((response, index) => make("div.response.text", {}, make("b.letter", {}, letters[index]), turns(response))),
    ),
    item.explanation_html ? make("div.why.text", {}, rendered(item.explanation_html)) : null,
  );
}
