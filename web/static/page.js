// The page: which view an address shows, the bar above it, and the login where nobody is known.

import { h, icon } from "./dom.js";
import { post } from "./client.js";
import { chooseLanguage, loadWords, otherLanguage, t } from "./words.js";
import { loadVisitor, visitor } from "./visitor.js";
import { loginView } from "./login.js";
import { searchView } from "./search.js";
import { photoView } from "./photo.js";
import { libraryView } from "./library.js";
import { systemView } from "./system.js";

const VIEWS = [
  { name: "search", pattern: /^\/ai\/?$/, path: "/ai", show: searchView },
  { name: "photo", pattern: /^\/ai\/assets\/([0-9a-f-]{36})$/i, show: photoView },
  { name: "library", pattern: /^\/ai\/library$/, path: "/ai/library", show: libraryView },
  { name: "system", pattern: /^\/ai\/system$/, path: "/ai/system", show: systemView },
];
const inPanel = new URLSearchParams(location.search).has("panel");
let leave = () => {};

/** Go to an address of this page without loading it anew. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"]({}, "", path);
  show();
}

async function show() {
  leave();
  leave = () => {};
  const main = document.querySelector("main");
  const view = VIEWS.find((one) => one.pattern.test(location.pathname));
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view?.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const found = view?.pattern.exec(location.pathname);
  document.title = view ? `${t(`title.${view.name}`)} · immich-bento` : "immich-bento";
  if (!view) {
    main.replaceChildren(h("p", { class: "nothing" }, t("nothing.here")));
    return;
  }
  const shown = view.show({ go, id: found[1]?.toLowerCase(), again: start, inPanel });
  leave = shown.leave ?? leave;
  main.className = `view-${view.name}`;
  main.replaceChildren(shown.element);
  shown.shown?.();
}

function bar() {
  const links = VIEWS.filter((view) => view.path && (view.name !== "system" || visitor().admin)).map((view) =>
    h("a", { href: view.path, data: { view: view.name } }, icon(view.name), h("span", {}, t(`title.${view.name}`))));
  return h("header", { class: "bar" },
    h("a", { class: "brand", href: "/ai", "aria-label": t("home") },
      h("img", { src: "/ai/static/icon.svg", alt: "", width: 28, height: 28 }),
      h("span", {}, "immich-bento")),
    h("nav", { "aria-label": t("views") }, links),
    h("div", { class: "account" },
      h("button", { class: "quiet", type: "button", lang: otherLanguage() === "zh" ? "zh-CN" : "en",
        onclick: () => chooseLanguage(otherLanguage()) }, otherLanguage() === "zh" ? "中文" : "English"),
      h("span", { class: "who", title: t(`who.${visitor().kind}`) },
        visitor().kind === "key" ? t("who.key") : visitor().name),
      visitor().kind === "key" && visitor().cookie
        && h("button", { class: "quiet icon-only", type: "button", title: t("log.out"),
        "aria-label": t("log.out"), onclick: logOut }, icon("leave"))));
}

async function logOut() {
  await post("logout");
  await start();
}

/** Ask anew who this is, and show the page or the login. */
async function start() {
  const me = await loadVisitor();
  document.body.classList.toggle("in-panel", inPanel);
  if (!me.visitor) {
    leave();
    leave = () => {};
    document.title = `${t("login.title")} · immich-bento`;
    document.body.replaceChildren(h("main", { id: "main", class: "view-login" }, loginView(me, start)));
    document.querySelector("input")?.focus();
    return;
  }
  document.body.replaceChildren(
    h("a", { class: "skip", href: "#main" }, t("skip")),
    ...(inPanel ? [] : [bar()]),
    h("main", { id: "main", tabindex: "-1" }));
  await show();
}

/** Follow links within the page without loading it anew, unless a person asks for another tab. */
function follow(event) {
  const link = event.target.closest?.("a[href^='/ai']");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  window.scrollTo(0, 0);
}

await loadWords();
document.addEventListener("click", follow);
window.addEventListener("popstate", show);
try {
  await start();
} catch (error) {
  document.body.replaceChildren(h("main", { class: "view-login" },
    h("p", { class: "notice", role: "alert" }, icon("warning"), t("error.start", { why: error.message }))));
}
