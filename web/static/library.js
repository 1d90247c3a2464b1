// The library: how much of it is read, what waits, what failed, and what Immich has lost.

import { h, icon } from "./dom.js";
import { get, photoPath, pictureUrl, post } from "./client.js";
import { follow } from "./follow.js";
import { duration, number, percent, t, when } from "./words.js";

const PARTS = ["read", "empty", "failed", "waiting"];

/** Return the view. It follows the counts while it is shown. */
export function libraryView() {
  const gone = new AbortController();
  const counts = h("div", { "aria-busy": "true" }, h("p", { class: "faint" }, t("loading")));
  const failed = new PictureList({ path: "failures", title: "library.failed", hint: "library.failed.hint", gone });
  const lost = new PictureList({ path: "lost", title: "library.lost", hint: "library.lost.hint", gone });
  follow("library", gone, counts, (facts) => counts.replaceChildren(...summary(facts)));
  failed.load();
  lost.load();
  return {
    element: h("section", { class: "library" }, h("h1", {}, t("title.library")), counts, failed.element, lost.element),
    leave: () => gone.abort(),
  };
}

function summary(facts) {
  const sum = Math.max(1, PARTS.reduce((all, part) => all + facts[part], 0));
  return [
    ...facts.notes.map((note) =>
      h("div", { class: "notice", role: "alert" }, icon("warning"), h("p", {}, note.message))),
    h("div", { class: "facts" },
      fact("library.assets", facts.assets),
      fact("library.embedded", facts.embedded, facts.assets ? percent(facts.embedded / facts.assets) : ""),
      ...PARTS.map((part) => fact(`library.${part}`, facts[part], "", part))),
    h("div", { class: "meter", role: "img",
      "aria-label": PARTS.map((part) => `${t(`library.${part}`)} ${number(facts[part])}`).join(", ") },
      PARTS.map((part) => h("span", { class: part, style: { flexGrow: String(facts[part] / sum) } }))),
    h("p", { class: "pace" }, pace(facts)),
    facts.sync && h("p", { class: "faint" }, facts.sync.trouble ? t("library.sync.trouble", { why: facts.sync.trouble })
      : facts.sync.synced_at ? t("library.synced", { when: when(facts.sync.synced_at) }) : t("library.sync.not.yet")),
  ].filter(Boolean);
}

function fact(key, value, beside = "", part = null) {
  return h("div", { class: "fact" },
    h("span", { class: "fact-name" }, part && h("i", { class: `dot ${part}` }), t(key)),
    h("strong", {}, number(value)), beside && h("span", { class: "faint" }, beside));
}

function pace({ waiting, rate, window_seconds: span }) {
  if (!waiting) return t("library.done");
  if (!rate) return t("library.no.pace", { waiting: number(waiting), span: duration(span) });
  return t("library.pace", { rate: number(rate * 60, 1), waiting: number(waiting), left: duration(waiting / rate) });
}

/** Return the thumbnail of an asset, or what stands for a picture that cannot be shown. */
function small(id) {
  const none = h("span", { class: "no-picture" }, icon("picture"));
  if (!id) return none;
  const image = h("img", { src: pictureUrl(id, "thumbnail"), alt: "", loading: "lazy", width: 72, height: 54 });
  image.addEventListener("error", () => image.replaceWith(none));
  return image;
}

/** Pictures with something to do again: those that failed, or those whose text Immich has lost. */
class PictureList {
  constructor({ path, title, hint, gone }) {
    this.path = path;
    this.gone = gone;
    this.cursor = null;
    this.rows = h("ul", { class: "rows" });
    this.more = h("button", { type: "button", class: "button", hidden: true, onclick: () => this.load() }, t("more"));
    this.all = h("button", { type: "button", class: "button", onclick: () => this.retryAll() }, icon("again"),
      t("retry.all"));
    this.told = h("p", { class: "faint", role: "status" });
    this.element = h("section", { class: "picture-list", hidden: true, data: { list: path } },
      h("div", { class: "text-head" }, h("h2", {}, t(title)), this.all), h("p", { class: "faint" }, t(hint)),
      this.told, this.rows, this.more);
  }

  async load() {
    try {
      const answer = await get(`${this.path}${this.cursor ? `?cursor=${encodeURIComponent(this.cursor)}` : ""}`,
        this.gone.signal);
      this.cursor = answer.next_cursor;
      this.rows.append(...answer.pictures.map((one) => this.row(one)));
      this.more.hidden = !this.cursor;
      this.element.hidden = !this.rows.children.length;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.element.hidden = false;
      this.told.textContent = error.message;
    }
  }

  row(one) {
    const told = h("span", { class: "row-told", role: "status" });
    const button = h("button", { type: "button", class: "button retry", onclick: () => retry() }, icon("again"),
      t("retry"));
    const reasons = one.problems.map((problem) =>
      h("span", { class: "reason" }, h("b", {}, t(`failed.${problem.task}`)), " ", problem.message, " ",
        h("span", { class: "faint" }, t("failed.times", { n: problem.attempts, when: when(problem.failed_at) }))));
    const name = one.id ? h("a", { href: photoPath(one.id) }, one.name) : h("span", {}, one.name);
    const row = h("li", { class: "row" },
      small(one.id),
      h("div", { class: "row-text" }, name, ...reasons, told), button);
    async function retry() {
      button.disabled = true;
      told.textContent = t("redo.working", { n: 0 });
      try {
        await post("retry", one.retry);
        row.classList.add("done");
        told.textContent = t("retry.done");
        button.replaceChildren(icon("check"), t("retry.done"));
      } catch (error) {
        told.textContent = error.message;
        button.disabled = false;
      }
    }
    row.retry = retry;
    return row;
  }

  async retryAll() {
    this.all.disabled = true;
    const rows = [...this.rows.children].filter((row) => !row.classList.contains("done"));
    for (const [at, row] of rows.entries()) {
      if (this.gone.signal.aborted) return;
      this.told.textContent = t("retry.going", { n: at + 1, all: rows.length });
      await row.retry();
    }
    this.told.textContent = t("retry.ended",
      { done: rows.filter((row) => row.classList.contains("done")).length, all: rows.length });
    this.all.disabled = false;
  }
}
