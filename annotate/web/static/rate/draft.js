// The item in hand: what is filled in and not submitted, on the server and in this browser, and the lease.

import { store } from "./outbox.js";
import { Problem } from "../server.js";

const PAUSE = 1000; // ms after a change, before the server hears of it
const AGAIN = 5000; // ms after a failure
const RENEW = 5 * 60 * 1000; // ms; the server's lease is several times as long

export class Draft {
  // `call(method, path, body)` asks within the project; `trouble(problem)` hears what the rater must know.
  constructor(prefix, task, call, trouble) {
    Object.assign(this, { task, call, trouble, name: prefix + task.assignment });
    this.version = task.draft?.version ?? null;
    this.dirty = false;
    this.apart = false; // another window has the item, too: this one keeps its draft in this browser only
    this.heldAt = Date.now();
    this.resume();
  }

  // What was filled in before, or null. The server's comes from any machine; this browser's may be newer.
  load() {
    let local = null;
    try {
      local = JSON.parse(localStorage.getItem(this.name));
    } catch {
      // none, then
    }
    const mine = local && local.version === this.version ? local.rating : null;
    const rating = mine ?? this.task.draft?.body ?? null;
    return rating?.ranks?.length === this.task.responses.length ? rating : null;
  }

  // `changed` says whether there is something new for the server, more than the time.
  keep(rating, changed = true) {
    if (this.over) return;
    this.rating = rating;
    this.#keepHere();
    if (!changed || this.apart) return;
    this.dirty = true;
    this.#later(PAUSE);
  }

  async save() {
    clearTimeout(this.timer);
    if (this.over || this.saving || !this.dirty) return;
    this.saving = true;
    this.dirty = false;
    const body = structuredClone(this.rating);
    try {
      const { assignment } = this.task;
      const saved = await this.call("PUT", `assignments/${assignment}/draft`, { body, version: this.version });
      this.#saved(saved.version);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      await this.#failed(problem, body);
    } finally {
      this.saving = false;
    }
    if (this.dirty) this.#later(PAUSE);
  }

  // Lengthen the lease if it is time; for a rater who reads and changes nothing.
  async renew(activeAt) {
    if (this.over || activeAt < this.heldAt || Date.now() - this.heldAt < RENEW) return;
    this.heldAt = Date.now();
    try {
      await this.call("POST", `assignments/${this.task.assignment}/renew`);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (!problem.passes && !this.over) this.trouble(problem);
    }
  }

  // Its item is on the screen (again). An answer that stands has neither draft nor lease.
  resume() {
    this.over = this.task.revises !== null;
  }

  // Submitted or given up: nothing is kept any more.
  end() {
    this.over = true;
    clearTimeout(this.timer);
    store(this.name, null);
  }

  #saved(version) {
    this.version = version;
    this.lost = null;
    this.heldAt = Date.now();
    if (!this.over) this.#keepHere();
  }

  async #failed(problem, body) {
    if (this.over) return; // it came after the answer
    if (problem.passes || problem.rule === "signed-out") {
      this.dirty = true;
      this.lost = JSON.stringify(body); // it may have been stored all the same
      this.#later(AGAIN);
      if (!problem.passes) this.trouble(problem);
    } else if (problem.rule === "wrong-version" && this.lost && (await this.#isOurs())) {
      this.dirty = true;
    } else {
      this.apart = true;
      this.trouble(problem);
    }
  }

  // Whether the draft that stands is the one whose receipt was lost on the way.
  async #isOurs() {
    try {
      const stands = await this.call("GET", `assignments/${this.task.assignment}/draft`);
      if (!same(stands.body, JSON.parse(this.lost))) return false;
      this.#saved(stands.version);
      return true;
    } catch {
      return false;
    }
  }

  #keepHere() {
    store(this.name, JSON.stringify({ version: this.version, rating: this.rating }));
  }

  #later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), ms);
  }
}

const sorted = (_, value) =>
  value && typeof value === "object" && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort()) : value;
const same = (one, other) => JSON.stringify(one, sorted) === JSON.stringify(other, sorted);
