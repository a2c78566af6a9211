// Choosing or dropping a file of items, of ours or of another tool's, and what is in it: how many, the first ones as
// raters see them, and its first mistake with the line. The file itself is sent whole at the end.

import { count, field, make, newId, rendered, select, turns } from "./widgets.js";
import { t } from "../words.js";

const LOOKED_AT = 8000000; // characters that are sent for the preview

// {node, text(), format(), look()}: `call` asks the server, `mask()` are the names to hide in the preview, `changed()`
// hears of another file.
export function filePicker({ call, mask, changed = () => {} }) {
  let text = "";
  let name = "";
  let latest = 0; // a look at a file may end after a look at another one that was chosen later
  const found = make("div.found", { "aria-live": "polite" });
  const chooser = make("input", { type: "file", accept: ".jsonl,.ndjson,.json,.txt,.gz", className: "unseen", id: newId("file"), onchange: () => take(chooser.files[0]) });
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

  const whose = select("", [["", t("Concord’s own")]], { onchange: look });
  call("GET", "/api/v1/formats")
    .then((known) => whose.append(...known.map((one) => make("option", { value: one.name, title: one.about }, one.name))))
    .catch(() => {}); // what is chosen already is what most people need

  async function take(file) {
    if (!file) return;
    const mine = ++latest;
    let read;
    try {
      read = await (file.name.endsWith(".gz") ? unzipped(file) : file.text());
    } catch {
      if (mine !== latest) return;
      found.replaceChildren(make("p.alert", { role: "alert" }, t("The file could not be unzipped.")));
      return;
    }
    if (mine !== latest) return;
    text = read;
    name = file.name;
    chooser.value = ""; // so that the same file, once it is mended, is a choice again
    words.textContent = t("{name} – choose another", { name });
    await look();
    changed();
  }

  async function look() {
    if (!name) return;
    const mine = ++latest;
    found.replaceChildren(make("p.soft", {}, t("Looking at the file…")));
    try {
      const format = whose.value || null;
      const lines = beginning(text, format);
      const seen = await call("POST", "/api/v1/projects/preview", { lines, mask: mask(), format });
      if (mine === latest) found.replaceChildren(...preview(seen, lines.length < text.length));
    } catch (problem) {
      if (mine !== latest) return;
      found.replaceChildren(make("p.alert", { role: "alert" }, problem.message));
    }
  }

  const example = make("details.example", {}, make("summary", {}, t("What the file looks like")), make("pre", { tabindex: "0" }, EXAMPLE));
  const node = make("div.file", {}, zone, field(t("Format of the file"), whose), example, found);
  return { node, text: () => text, format: () => whose.value, name: () => name, look };
}

const EXAMPLE = `{"id": "q17", "prompt": "What is a comet?", "responses": [{"text": "A ball of ice …", "model": "a"}, {"text": "A star …", "model": "b"}]}
{"id": "q18", "prompt": "Say hello.", "responses": ["Hello!", "Hi."], "gold": [1, 2], "explanation": "More polite."}`;

const unzipped = (file) => new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).text();

// Whole lines only, since half a line is no item, and half of another tool's array is none either.
function beginning(text, format) {
  const whole = text.length <= LOOKED_AT || (format && text.trimStart().startsWith("["));
  return whole ? text : text.slice(0, text.lastIndexOf("\n", LOOKED_AT) + 1);
}

// The answer of POST /projects/preview as elements.
export function preview({ count: items, items: first, problem, lost }, cut = false) {
  const said = [];
  if (problem) said.push(make("p.alert", { role: "alert" }, problem));
  else if (cut) said.push(make("p.done", {}, t("Items in the part looked at: {items}. The rest is checked when it is imported.", { items: count(items) })));
  else said.push(make("p.done", {}, t("Items: {items}. No mistake found.", { items: count(items) })));
  if (lost.length) {
    said.push(make("p", {}, t("Left out, since an item has no place for it:")), make("ul", { dir: "auto" }, lost.map((one) => make("li", {}, one))));
  }
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
