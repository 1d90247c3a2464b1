// Words of the page in the browser's language: one table for each, static/words/<language>.json.

const LANGUAGES = ["en", "zh"];
const CHOICE = "immich-bento.language";
let words = {};
let language = "en";

/** Load the table of the language that was chosen, or else of the first of the browser's that there is. */
export async function loadWords() {
  language = chosen() ?? preferred();
  const response = await fetch(`/ai/static/words/${language}.json`);
  words = await response.json();
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
}

function chosen() {
  try {
    const kept = localStorage.getItem(CHOICE);
    return LANGUAGES.includes(kept) ? kept : null;
  } catch {
    return null; // storage is switched off
  }
}

function preferred() {
  for (const tag of navigator.languages ?? [navigator.language]) {
    const found = LANGUAGES.find((one) => tag.toLowerCase().startsWith(one));
    if (found) return found;
  }
  return "en";
}

/** Keep a language for this browser, and load the page anew in it. */
export function chooseLanguage(name) {
  try {
    localStorage.setItem(CHOICE, name);
  } catch {
    return; // there is nowhere to keep it
  }
  location.reload();
}

/** Return the words called `key`, with `{name}` replaced by `values.name`. */
export function t(key, values = {}) {
  const text = words[key];
  if (text === undefined) throw new Error(`There are no words for ${key}.`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Return whether there are words called `key`. */
export function hasWords(key) {
  return key in words;
}

export const currentLanguage = () => language;
export const otherLanguage = () => LANGUAGES.find((one) => one !== language);

const locale = () => (language === "zh" ? "zh-CN" : "en");

/** Return a number with the marks of the language: 12,345. */
export const number = (value, digits = 0) =>
  new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);

/** Return a share (0 to 1) in percent. */
export const percent = (value) => new Intl.NumberFormat(locale(), { style: "percent" }).format(value);

/** Return a date and time as people write it. */
export const when = (text) =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));

/** Return a number of bytes in MB or GB. */
export function bytes(count) {
  const [value, unit] = count >= 1e9 ? [count / 1e9, "GB"] : [count / 1e6, "MB"];
  return `${number(value, value < 10 ? 1 : 0)} ${unit}`;
}

/** Return a time in its two largest units that matter: 3 h 20 min. */
export function duration(seconds) {
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return t("time.minutes", { n: number(minutes) });
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return t("time.hours", { h: number(hours), m: number(minutes % 60) });
  return t("time.days", { n: number(Math.round(hours / 24)) });
}
