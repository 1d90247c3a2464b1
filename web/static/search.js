// Search: one box, hits as they are typed for, and more of them as one scrolls.

import { h, icon } from "./dom.js";
import { get } from "./client.js";
import { card } from "./card.js";
import { remember } from "./trail.js";
import { t } from "./words.js";
import { ofImmich } from "./visitor.js";

const MODES = ["auto", "hybrid", "ocr", "clip"];
const EXAMPLES = ["search.example.1", "search.example.2", "search.example.3", "search.example.4"];
const WAIT = 250; // milliseconds without a key before a search is asked
const PAGE = 30;
let kept = null; // the view, for whoever comes back to it

/** Return the view. Coming back to the same search finds it as it was left. */
export function searchView({ go }) {
  if (kept?.address === location.search) {
    const { element, leave, scroll } = kept;
    return { element, leave, shown: () => window.scrollTo(0, scroll) };
  }
  return new Search(go).view();
}

class Search {
  constructor(go) {
    const asked = new URLSearchParams(location.search);
    this.go = go;
    this.mode = MODES.includes(asked.get("mode")) ? asked.get("mode") : "auto";
    this.cursor = null;
    this.ids = [];
    this.busy = null;
    this.timer = 0;
    this.box = h("input", {
      type: "search", id: "q", name: "q", autocomplete: "off", enterkeyhint: "search", spellcheck: "false",
      placeholder: t("search.placeholder"), "aria-label": t("search.label"), oninput: () => this.later(),
    });
    this.box.value = asked.get("q") ?? "";
    this.modes = h("div", { class: "segments", role: "radiogroup", "aria-label": t("mode.label"),
      onkeydown: (event) => this.turn(event) },
      MODES.map((mode) => h("button", {
        type: "button", role: "radio", data: { mode }, title: t(`mode.${mode}.hint`), onclick: () => this.choose(mode),
      }, t(`mode.${mode}`))));
    this.status = h("p", { class: "status", role: "status" });
    this.notes = h("div", { class: "notes" });
    this.grid = h("ul", { class: "grid" });
    this.end = h("div", { class: "end", "aria-hidden": "true" });
    this.empty = h("div", { class: "welcome" });
    this.watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.more(),
      { rootMargin: "800px" });
  }

  view() {
    const element = h("section", { class: "search" },
      h("form", { role: "search", class: "search-box", onsubmit: (event) => { event.preventDefault(); this.start(); } },
        icon("search"), this.box),
      h("div", { class: "search-under" }, this.modes, this.status),
      this.notes, this.empty, this.grid, this.end);
    this.mark();
    const leave = () => {
      kept = { element, leave, address: this.address(), scroll: window.scrollY };
    };
    return { element, leave, shown: () => { this.box.focus({ preventScroll: true }); this.start(); } };
  }

  address() {
    const asked = new URLSearchParams();
    if (this.box.value) asked.set("q", this.box.value);
    if (this.mode !== "auto") asked.set("mode", this.mode);
    return asked.size ? `?${asked}` : "";
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.start(), WAIT);
  }

  choose(mode) {
    this.mode = mode;
    this.mark();
    this.start();
  }

  turn(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.choose(MODES[(MODES.indexOf(this.mode) + step + MODES.length) % MODES.length]);
    this.modes.querySelector("[aria-checked=true]").focus();
  }

  mark() {
    for (const button of this.modes.children) {
      const on = button.dataset.mode === this.mode;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
  }

  async start() {
    clearTimeout(this.timer);
    this.busy?.abort();
    this.watcher.disconnect();
    history.replaceState({}, "", `/ai${this.address()}`);
    if (!this.box.value.trim()) {
      this.clear();
      this.status.textContent = "";
      this.welcome();
      return;
    }
    this.cursor = null;
    await this.ask(true);
  }

  async more() {
    if (this.cursor && !this.busy) await this.ask(false);
  }

  async ask(first) {
    const busy = new AbortController();
    this.busy = busy;
    this.grid.setAttribute("aria-busy", "true");
    const query = new URLSearchParams({ q: this.box.value, mode: this.mode, limit: PAGE });
    if (!first) query.set("cursor", this.cursor);
    try {
      const answer = await get(`search?${query}`, busy.signal);
      if (first) this.clear();
      this.add(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.clear();
      this.cursor = null;
      this.status.textContent = "";
      this.notes.replaceChildren(h("p", { class: "notice", role: "alert" }, icon("warning"), error.message));
    }
    if (this.busy !== busy) return;
    this.busy = null;
    this.grid.removeAttribute("aria-busy");
    this.watcher.disconnect(); // observed anew, it tells at once whether the end is still in sight
    if (this.cursor) this.watcher.observe(this.end);
  }

  clear() {
    this.ids = [];
    this.grid.replaceChildren();
    this.notes.replaceChildren();
    this.empty.replaceChildren();
  }

  add(answer) {
    this.cursor = answer.next_cursor;
    this.ids.push(...answer.hits.map((hit) => hit.id));
    this.grid.append(...answer.hits.map((hit) => card(hit, () => remember(this.ids))));
    this.notes.replaceChildren(...answer.notes.map((note) =>
      h("p", { class: "notice" }, icon("warning"), note.message)));
    const count = this.cursor ? t("search.first", { n: this.ids.length }) : t("search.count", { n: this.ids.length });
    this.status.textContent = this.ids.length ? `${count} · ${t(`answered.${answer.mode}`)}` : "";
    if (!this.ids.length) {
      this.empty.replaceChildren(h("p", { class: "nothing" },
        t("search.nothing", { mode: t(`answered.${answer.mode}`) })));
    }
  }

  welcome() {
    this.empty.replaceChildren(
      h("h1", {}, t("search.welcome")),
      h("p", {}, t("search.welcome.how")),
      h("p", { class: "examples" }, EXAMPLES.map((key) =>
        h("button", { type: "button", class: "chip", onclick: () => this.fill(t(key)) }, t(key)))),
      !ofImmich() && h("p", { class: "faint" }, t("search.standalone")));
  }

  fill(query) {
    this.box.value = query;
    this.box.focus();
    this.start();
  }
}
