// A photo: its text line by line beside the boxes of it, its faces, and doing it again.

import { h, icon, s } from "./dom.js";
import { get, photoPath, pictureUrl } from "./client.js";
import { textBoxes } from "./boxes.js";
import { card } from "./card.js";
import { copyButton } from "./clipboard.js";
import { facesAfter, redo, textDifference } from "./redo.js";
import { beside, remember } from "./trail.js";
import { immichLink, ofImmich } from "./visitor.js";
import { percent, t, when } from "./words.js";

/** Return the view of the asset called `id`. */
export function photoView(page) {
  return new Photo(page).view();
}

class Photo {
  constructor({ id, go, inPanel }) {
    this.id = id;
    this.go = go;
    this.inPanel = inPanel;
    this.found = { faces: [] };
    this.gone = new AbortController();
    this.image = h("img", { class: "whole", src: pictureUrl(id, "preview"), alt: "",
      onload: () => this.stage.classList.add("there"),
      onerror: () => this.stage.classList.add("broken") });
    this.layer = h("div", { class: "stage-layer" }, this.image);
    this.stage = h("div", { class: "stage" }, this.layer, h("p", { class: "broken-text" }, t("photo.broken")));
    this.side = h("aside", { class: "side", "aria-busy": "true" }, h("p", { class: "faint" }, t("loading")));
    this.like = h("section", { class: "like" });
  }

  view() {
    document.addEventListener("keydown", (event) => this.key(event), { signal: this.gone.signal });
    this.swipes();
    this.load();
    return { element: h("article", { class: "photo" }, this.stage, this.side, this.like),
      leave: () => this.gone.abort() };
  }

  async load() {
    try {
      this.photo = await get(`assets/${this.id}`, this.gone.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.side.replaceChildren(h("p", { class: "notice", role: "alert" }, icon("warning"), error.message));
      this.side.removeAttribute("aria-busy");
      return;
    }
    document.title = `${this.photo.name} · immich-bento`;
    this.image.alt = this.photo.name;
    this.draw();
    this.steps();
    if (ofImmich()) this.loadFaces();
    if (this.photo.embedded) this.loadLike();
  }

  draw(changes = []) {
    const { photo } = this;
    const outside = immichLink(this.id);
    this.layer.querySelector(".boxes")?.remove();
    this.boxes = textBoxes(photo.lines);
    this.layer.append(this.boxes);
    for (const type of ["pointerover", "click"]) this.boxes.addEventListener(type, (event) => this.point(event, type));
    this.boxes.addEventListener("pointerout", () => this.light(null));
    this.lines = h("ol", { class: "lines" }, photo.lines.map((line, at) => h("li", {
      tabindex: at ? -1 : 0, data: { n: line.n }, onpointerenter: () => this.light(line.n),
      onpointerleave: () => this.light(null),
      onfocus: () => this.light(line.n), onblur: () => this.light(null), onkeydown: (event) => this.step(event),
    }, line.text)));
    this.told = h("div", { class: "told", role: "status" }, changes);
    this.side.replaceChildren(...[
      h("div", { class: "side-head" }, h("h1", {}, photo.name),
        this.inPanel && h("button", { type: "button", class: "quiet icon-only", title: t("close"),
          "aria-label": t("close"), onclick: closePanel }, icon("close"))),
      h("p", { class: "faint" }, photo.taken_at ? when(photo.taken_at) : "",
        photo.place ? h("span", { class: "place" }, photo.place) : ""),
      outside && h("p", {}, h("a", { href: outside, target: this.inPanel ? "_top" : "_blank", rel: "noopener",
        class: "out" }, icon("out"), t("open.immich"))),
      photo.failures.map((one) =>
        h("p", { class: "notice" }, icon("warning"), t(`failed.${one.task}`), ": ", one.message)),
      photo.tasks.length > 0 && h("div", { class: "actions" }, photo.tasks.map((task) =>
        h("button", { type: "button", class: "button", data: { task },
          onclick: (event) => this.again(task, event.currentTarget) }, icon("again"), t(`again.${task}`)))),
      this.told,
      h("div", { class: "text-head" }, h("h2", {}, t("photo.text")),
        photo.lines.length > 0 && copyButton(() => this.photo.text, t("copy.all"))),
      h("p", { class: "faint" }, this.readBy()),
      photo.lines.length ? this.lines
        : h("p", { class: "nothing" }, t(photo.read ? "photo.no.text" : "photo.not.read")),
      this.toggles(),
    ].flat().filter(Boolean));
    this.side.removeAttribute("aria-busy");
    this.drawFaces();
  }

  readBy() {
    const { model, read_at: at, read } = this.photo;
    if (!read) return "";
    return t(model ? "photo.read.by" : "photo.read.at", { model: model ?? "", when: at ? when(at) : "?" });
  }

  toggles() {
    const toggle = (name, words) => h("label", { class: "toggle" },
      h("input", { type: "checkbox", checked: !this.stage.classList.contains(`no-${name}`),
        onchange: (event) => this.stage.classList.toggle(`no-${name}`, !event.target.checked) }), h("span", {}, words));
    return h("p", { class: "toggles" },
      this.photo.lines.some((line) => line.box) && toggle("text", t("show.text")),
      this.found.faces.length > 0 && toggle("faces", t("show.faces", { n: this.found.faces.length })));
  }

  // Lines and boxes

  light(n) {
    for (const one of this.side.querySelectorAll(".lines li")) one.classList.toggle("lit", one.dataset.n === String(n));
    for (const one of this.boxes.children) one.classList.toggle("lit", one.dataset.n === String(n));
  }

  point(event, type) {
    const n = event.target.dataset?.n;
    if (!n) return;
    this.light(n);
    const line = this.lines.querySelector(`[data-n="${n}"]`);
    if (type === "click") line.focus({ preventScroll: true });
    if (type === "click" || event.pointerType === "mouse") line.scrollIntoView({ block: "nearest" });
  }

  step(event) {
    const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const other = next && event.currentTarget[next];
    if (!other) return;
    event.preventDefault();
    event.currentTarget.tabIndex = -1;
    other.tabIndex = 0;
    other.focus();
  }

  // Faces

  async loadFaces() {
    try {
      this.found = await get(`assets/${this.id}/faces`, this.gone.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.told.append(h("p", { class: "faint" }, error.message));
      return;
    }
    this.drawFaces();
    this.side.querySelector(".toggles")?.replaceWith(this.toggles());
  }

  drawFaces() {
    this.layer.querySelector(".faces")?.remove();
    if (!this.found.faces.length) return;
    this.layer.append(s("svg", { class: "faces", viewBox: "0 0 1 1", preserveAspectRatio: "none", role: "img",
      "aria-label": t("show.faces", { n: this.found.faces.length }) }, this.found.faces.map((face) => s("rect",
        { x: face.x1, y: face.y1, width: face.x2 - face.x1, height: face.y2 - face.y1 },
        face.name ? s("title", {}, face.name) : null))));
  }

  // Again

  async again(task, button) {
    const tell = (text) => { this.told.replaceChildren(h("p", { class: "busy" }, text)); };
    for (const one of this.side.querySelectorAll(".actions button")) one.disabled = true;
    const before = { lines: this.photo.lines, found: this.found };
    try {
      const done = await redo(this.id, task, tell);
      const changes = await this.changes(task, done, before, tell);
      this.photo = await get(`assets/${this.id}`, this.gone.signal);
      this.image.src = pictureUrl(this.id, "preview", Date.now()); // the file may be another than the browser has kept
      if (task === "ocr") changes.push(...textDifference(before.lines, this.photo.lines, done.models.ocr));
      this.draw(changes);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.told.replaceChildren(h("p", { class: "notice", role: "alert" }, icon("warning"), error.message));
      for (const one of this.side.querySelectorAll(".actions button")) one.disabled = false;
    }
    this.side.querySelector(`[data-task="${task}"]`)?.focus({ preventScroll: true });
    button.blur?.();
  }

  async changes(task, done, before, tell) {
    if (task === "clip") {
      const moved = done.similarity === null ? t("diff.clip.first")
        : t("diff.clip", { share: percent(done.similarity) });
      return [h("p", {}, t("diff.clip.by", { model: done.models.clip }), " ", moved)];
    }
    if (task === "faces") {
      this.found = await facesAfter(this.id, before.found, tell);
      const [was, is] = [before.found.faces, this.found.faces];
      const same = JSON.stringify(was) === JSON.stringify(is);
      return [h("p", {}, same ? t("diff.faces.same", { n: is.length })
        : t("diff.faces", { before: was.length, after: is.length }))];
    }
    return [];
  }

  // Beside and alike

  steps() {
    const around = beside(this.id) ?? this.photo;
    this.around = around;
    for (const [name, id] of [["previous", around.previous], ["next", around.next]]) {
      if (id) {
        this.stage.append(h("a", { class: `step ${name}`, href: photoPath(id) + location.search, "aria-label": t(name),
          title: t(name) }, icon(name === "previous" ? "left" : "right")));
      }
    }
  }

  move(name) {
    const id = this.around?.[name];
    if (id) this.go(photoPath(id) + location.search);
  }

  key(event) {
    if (event.target.closest?.("input, textarea, [role=radiogroup]") || event.altKey || event.ctrlKey
      || event.metaKey) return;
    if (event.key === "ArrowLeft") this.move("previous");
    if (event.key === "ArrowRight") this.move("next");
    if (event.key === "Escape" && this.inPanel) closePanel();
  }

  swipes() {
    let from = null;
    this.stage.addEventListener("touchstart",
      (event) => { from = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
    this.stage.addEventListener("touchend", (event) => {
      const to = event.changedTouches[0];
      const x = from ? to.clientX - from.clientX : 0;
      if (from && Math.abs(x) > 60 && Math.abs(to.clientY - from.clientY) < 40) this.move(x > 0 ? "previous" : "next");
      from = null;
    }, { passive: true });
  }

  async loadLike() {
    try {
      const { hits } = await get(`assets/${this.id}/similar`, this.gone.signal);
      if (!hits.length) return;
      const ids = hits.map((hit) => hit.id);
      this.like.replaceChildren(h("h2", {}, t("photo.like")),
        h("ul", { class: "grid small" }, hits.map((hit) => card(hit, () => remember(ids)))));
    } catch (error) {
      if (error.name !== "AbortError") this.like.replaceChildren(h("p", { class: "faint" }, error.message));
    }
  }
}

function closePanel() {
  window.parent.postMessage({ immichBento: "close" }, location.origin);
}

