// What the rater has submitted and the server has not acknowledged yet: one at a time, in order, tried again until it
// is stored or refused, with the same key; kept in localStorage, so that a reload loses nothing.

import { Problem } from "../server.js";

const LONGEST_PAUSE = 30; // seconds

export class Outbox {
  // `send(entry)` makes the request; `on` hears stored(entry, response), refused(entry, problem), and
  // trouble(problem), with null when it is over.
  constructor(prefix, send, on) {
    this.prefix = prefix;
    this.send = send;
    this.on = on;
    this.entries = this.#kept();
    this.failing = false;
    this.running = null;
  }

  has(assignment) {
    return this.entries.some((entry) => entry.body.assignment === assignment);
  }

  put(path, body) {
    const entry = { key: newKey(), path, body, at: Date.now() };
    if (path === "answers") body.key = entry.key;
    this.entries.push(entry);
    store(this.prefix + entry.key, JSON.stringify(entry));
    this.run();
    return entry;
  }

  // Resolves when nothing is left to send.
  run() {
    this.running ??= this.#run().finally(() => (this.running = null));
    return this.running;
  }

  // Try again now: the network, the window or the login is back.
  wake() {
    this.awake?.();
  }

  async #run() {
    let tries = 0;
    while (this.entries.length) {
      const entry = this.entries[0];
      try {
        const response = await this.send(entry);
        this.#done(entry);
        tries = 0;
        this.#trouble(null);
        this.on.stored(entry, response);
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        const stays = problem.passes || ["signed-out", "other-login"].includes(problem.rule);
        if (stays) {
          this.#trouble(problem);
          const backoff = Math.min(LONGEST_PAUSE, 2 ** tries++) * (0.75 + Math.random() / 2);
          await this.#pause(Math.max(backoff, problem.facts.retry_after ?? 0));
        } else {
          this.#done(entry);
          this.#trouble(null);
          this.on.refused(entry, problem);
        }
      }
    }
  }

  #done(entry) {
    this.entries.shift();
    store(this.prefix + entry.key, null);
  }

  #trouble(problem) {
    if (problem || this.failing) this.on.trouble(problem);
    this.failing = problem !== null;
  }

  #pause(seconds) {
    return new Promise((resolve) => {
      this.awake = resolve;
      setTimeout(resolve, 1000 * seconds);
    });
  }

  #kept() {
    const found = [];
    try {
      for (const name of Object.keys(localStorage)) {
        if (name.startsWith(this.prefix)) found.push(JSON.parse(localStorage.getItem(name)));
      }
    } catch {
      // a browser that stores nothing has kept nothing
    }
    return found.sort((one, other) => one.at - other.at);
  }
}

export function store(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // full, or switched off: then only a reload loses it
  }
}

const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
