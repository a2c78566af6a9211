// How long somebody is at work: time counts only while the page is visible and was touched within the last minute.

const ALONE = 60000; // ms after the last sign of life, from which no time counts until the next one
const SIGNS = ["keydown", "pointermove", "pointerdown", "wheel", "touchstart", "touchmove"];

let counted = 0; // ms that nobody has taken yet
let until = null; // up to when time is counted, by performance.now(); null while the page is hidden
let seen = 0; // the last sign of life, by performance.now()
let seenAt = 0; // and by the clock

export function watchPresence() {
  look();
  document.addEventListener("visibilitychange", look);
  for (const sign of SIGNS) addEventListener(sign, signOfLife, { passive: true, capture: true });
}

// The seconds of work since this was last asked.
export function takeSeconds() {
  count();
  const seconds = counted / 1000;
  counted = 0;
  return seconds;
}

// When there was last a sign of life, in ms as Date.now() has it.
export const lastSeen = () => seenAt;

function look() {
  if (document.hidden) {
    count();
    until = null;
  } else {
    signOfLife(); // somebody has opened the page, or come back to it
    until ??= performance.now();
  }
}

function signOfLife() {
  count();
  seen = performance.now();
  seenAt = Date.now();
}

function count() {
  if (until === null) return;
  const now = performance.now();
  counted += Math.max(0, Math.min(now, seen + ALONE) - until);
  until = now;
}
