// The words of a page in the person's language, and numbers, dates and money as that language writes them.
//
// An English sentence is its own key: t("Undo my last answer"). Keys stand literally in the code, since a test looks for
// them there; later("…") marks one that is translated where it is drawn. What is put into a sentence goes in as text.

const COOKIE = "concord_language";
const PATIENCE = 3000; // ms; a language file that takes longer is done without
const PLACE = /\{(\w+)\}/; // of a value in a sentence
const RIGHT_TO_LEFT = new Set(["ar", "dv", "fa", "he", "ps", "ur", "yi"]);

let language = "en";
let sentences = {}; // English -> the language
let locale = "en-GB";

document.documentElement.dataset.unspoken = ""; // concord.css hides the page until it is translated
const spoken = load();

// Resolves when the language is there; draw nothing before. Never fails: what can't be had is English.
export const speak = () => spoken;

async function load() {
  const offered = Object.keys(languages());
  const wanted = [cookie(), ...navigator.languages].map((tag) => tag.toLowerCase().split("-")[0]);
  const found = wanted.find((tag) => offered.includes(tag)) ?? "en";
  try {
    if (found !== "en") {
      const answer = await fetch(`/static/languages/${found}.json`, { signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(`no language file (${answer.status})`);
      sentences = await answer.json();
    }
    language = found;
  } catch (error) {
    console.warn("concord: in English, since the language could not be loaded:", error.message);
  }
  locale = regional();
  document.documentElement.lang = language;
  document.documentElement.dir = RIGHT_TO_LEFT.has(language) ? "rtl" : "ltr";
}

// The languages that this server speaks: {code: its own name}.
export function languages() {
  const found = document.querySelector("meta[name=concord-languages]");
  return found ? JSON.parse(found.content) : { en: "English" };
}

function cookie() {
  const found = document.cookie.split("; ").find((one) => one.startsWith(COOKIE + "="));
  return found ? found.slice(COOKIE.length + 1) : "";
}

// As the person's own country writes numbers, if the browser says which. Digits are those of the number keys everywhere.
function regional() {
  const own = navigator.languages.find((tag) => tag.toLowerCase().split("-")[0] === language);
  return new Intl.Locale(own ?? (language === "en" ? "en-GB" : language), { numberingSystem: "latn" }).toString();
}

// --- sentences ---

// The sentence in the person's language, with {name} replaced by values.name; numbers are written as the language does.
export function t(sentence, values = {}) {
  return tn(sentence, values).join("");
}

// The same as a list of strings and nodes, for append(): values may be elements, such as a link within the sentence.
export function tn(sentence, values = {}) {
  const parts = (sentences[sentence] || sentence).split(PLACE);
  return parts.map((part, index) => (index % 2 ? value(part, values) : part)).filter((part) => part !== "");
}

function value(name, values) {
  if (!(name in values)) return `{${name}}`;
  return typeof values[name] === "number" ? n(values[name]) : (values[name] ?? "");
}

// A sentence of a table that is made before the language is known: t() it where it is drawn.
export const later = (sentence) => sentence;

// Translate what a page of HTML says: with `data-t` an element's own text, with `data-t-label` its aria-label, with
// `data-t-title` its title, with `data-t-placeholder` its placeholder. Shows the page, which is hidden up to then.
export function translate(root) {
  for (const one of select(root, "data-t")) {
    const text = [...one.childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (text) text.data = text.data.replace(/\S(.*\S)?/s, (words) => t(words.replace(/\s+/g, " ")));
  }
  const attributes = { "data-t-label": "aria-label", "data-t-title": "title", "data-t-placeholder": "placeholder" };
  for (const [mark, attribute] of Object.entries(attributes)) {
    for (const one of select(root, mark)) one.setAttribute(attribute, t(one.getAttribute(attribute) ?? ""));
  }
  root.lang = language;
  root.dir = document.documentElement.dir; // Gradio's box around it says ltr
  delete document.documentElement.dataset.unspoken;
}

const select = (root, mark) => [...(root.hasAttribute(mark) ? [root] : []), ...root.querySelectorAll(`[${mark}]`)];

// --- numbers, dates, money ---

const made = new Map(); // formats take long to make

function format(kind, options) {
  const key = kind.name + JSON.stringify(options);
  if (!made.has(key)) made.set(key, new kind(locale, options));
  return made.get(key);
}

export const n = (value, digits = 2) => format(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);

// 0.874 -> 87%
export const percent = (share, digits = 0) =>
  format(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits }).format(share);

export function money(amount, currency) {
  try {
    return format(Intl.NumberFormat, { style: "currency", currency }).format(amount);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return `${n(amount)} ${currency}`; // no currency that the browser knows
  }
}

const DATE = { day: "numeric", month: "short", year: "numeric" }; // in words: "2/3" is two days, and runs awry in Arabic

// A moment (Unix time) as date and time.
export const when = (seconds) =>
  format(Intl.DateTimeFormat, { ...DATE, hour: "numeric", minute: "2-digit" }).format(1000 * seconds);

// A date without a time, as the API writes it: "2026-11-22".
export const day = (iso) => format(Intl.DateTimeFormat, { ...DATE, timeZone: "UTC" }).format(new Date(iso));

const STEPS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];

// A moment (Unix time) by how long ago it was: "3 minutes ago", "yesterday".
export function ago(seconds) {
  const since = seconds - Date.now() / 1000;
  const [unit, size] = STEPS.find(([, size]) => Math.abs(since) >= size) ?? ["second", 1];
  return format(Intl.RelativeTimeFormat, { numeric: "auto" }).format(Math.round(since / size), unit);
}

// A stretch of time in its two largest units: "1 hr 5 min"; under ten seconds with a tenth.
export function duration(seconds) {
  const unit = (value, unit, digits = 0) =>
    format(Intl.NumberFormat, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits }).format(value);
  if (seconds < 10) return unit(seconds, "second", 1);
  const whole = Math.round(seconds < 3600 ? seconds : seconds / 60) * (seconds < 3600 ? 1 : 60);
  if (whole < 60) return unit(whole, "second");
  const [large, size, small, rest] = whole < 3600 ? ["minute", 60, "second", 1] : ["hour", 3600, "minute", 60];
  const [most, least] = [Math.floor(whole / size), Math.floor((whole % size) / rest)];
  return unit(most, large) + (least ? ` ${unit(least, small)}` : "");
}

// --- choosing ---

// A list of the languages to choose from, for a page's header. Choosing keeps it, with the person if they are signed in,
// and loads the page anew; what pages keep of a draft when they are closed is kept. `before` may keep more.
export function languageChooser(before = async () => {}) {
  const select = document.createElement("select");
  select.className = "languages";
  select.setAttribute("aria-label", t("Language"));
  for (const [code, name] of Object.entries(languages())) {
    const option = new Option(name, code, false, code === language);
    option.lang = code;
    select.append(option);
  }
  select.addEventListener("change", async () => {
    select.disabled = true;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${COOKIE}=${select.value}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
    try {
      await before();
      await keep(select.value);
    } finally {
      location.reload();
    }
  });
  return select;
}

// Keep the choice with the person. Where that can't be done, this browser has it all the same.
async function keep(code) {
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const me = await (await fetch("/api/v1/me", { signal })).json();
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": me.csrf_token };
    await fetch("/api/v1/me/language", { method: "PUT", headers, signal, body: JSON.stringify({ language: code }) });
  } catch {
    // offline: the cookie is kept
  }
}
