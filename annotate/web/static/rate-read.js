// How prompts and responses are read: their turns, what is folded, and which way a text runs.
//
// The HTML was cleaned on the server (annotate/api/render.py). Whatever this adds stands outside of it, in `.turn`, so
// that the text of a `.body` is the text of the response and nothing else.

import { at, element } from "./rate-dom.js";

const ROLES = { user: "User", assistant: "Assistant", system: "System" };

export function drawTurns(box, messages, named) {
  box.replaceChildren(
    ...messages.map((message) => {
      const turn = element("div", "", "turn");
      if (named) turn.append(element("div", ROLES[message.role] ?? "Tool", "who"));
      const body = element("div", "", "body");
      body.innerHTML = message.html;
      body.dir = "auto";
      for (const one of body.querySelectorAll("a")) one.title = one.href;
      turn.append(body);
      return turn;
    }),
  );
}

export function foldPrompt() {
  const prompt = at("prompt");
  const unfolded = at("prompt-box").classList.contains("unfolded");
  at("fold").hidden = !unfolded && prompt.scrollHeight <= prompt.clientHeight + 1;
  at("fold").textContent = unfolded ? "Show less" : "Show all";
  at("fold").setAttribute("aria-expanded", unfolded);
}
