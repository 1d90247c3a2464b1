// The system: models, queue, load of the last hour, upstreams, versions, and a report to copy.

import { h, icon } from "./dom.js";
import { chart } from "./chart.js";
import { copyButton } from "./clipboard.js";
import { follow } from "./follow.js";
import { bytes, number, t } from "./words.js";

/** Return the view. It follows the figures while it is shown. */
export function systemView() {
  const gone = new AbortController();
  const body = h("div", { "aria-busy": "true" }, h("p", { class: "faint" }, t("loading")));
  let facts = null;
  follow("system", gone, body, (latest) => {
    facts = latest;
    if (!body.contains(document.activeElement)) body.replaceChildren(...sections(facts, () => facts.report));
  });
  return {
    element: h("section", { class: "system" }, h("h1", {}, t("title.system")), body),
    leave: () => gone.abort(),
  };
}

function sections(facts, report) {
  const { history } = facts;
  return [
    h("div", { class: "charts" },
      chart({ title: t("system.requests"), series: [history.requests], names: [""], unit: t("unit.per.second"),
        span: history.seconds }),
      chart({ title: t("system.latency"), series: [history.median, history.p95],
        names: [t("system.median"), t("system.p95")], unit: t("unit.seconds"), span: history.seconds })),
    h("div", { class: "facts" },
      tile("system.queue.bytes", bytes(facts.queue.bytes)),
      tile("system.queue.waiting", number(facts.queue.waiting)),
      tile("system.errors", number(history.errors)),
      tile("system.memory", facts.memory === null ? "–" : bytes(facts.memory))),
    h("h2", {}, t("system.models")),
    facts.models.length ? modelTable(facts.models) : h("p", { class: "nothing" }, t("system.no.models")),
    h("h2", {}, t("system.upstreams")),
    facts.upstreams.length ? h("ul", { class: "rows" }, facts.upstreams.map(upstream))
      : h("p", { class: "faint" }, t("system.no.upstreams")),
    h("h2", {}, t("system.versions")),
    h("dl", { class: "versions" }, Object.entries(facts.versions).flatMap(([name, value]) =>
      [h("dt", {}, name), h("dd", {}, value ?? "–")])),
    h("div", { class: "text-head" }, h("h2", {}, t("system.report")), copyButton(report, t("copy.report"))),
    h("p", { class: "faint" }, t("system.report.hint")),
    h("pre", { class: "report", tabindex: "0", "aria-label": t("system.report") }, facts.report),
  ];
}

function tile(key, value) {
  return h("div", { class: "fact" }, h("span", { class: "fact-name" }, t(key)), h("strong", {}, value));
}

function modelTable(models) {
  const names = ["task", "model", "state", "engine", "precision", "memory"];
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": t("system.models") },
    h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, t(`models.${name}`))))),
      h("tbody", {}, models.map((model) => h("tr", {},
        h("td", {}, model.task), h("th", { scope: "row" }, model.model),
        h("td", {},
          h("span", { class: `state ${model.loaded ? "up" : model.state === "unavailable" ? "down" : ""}` },
            stateOf(model))),
        h("td", {}, model.engine ?? "–"), h("td", {}, model.precision ?? "–"),
        h("td", { class: "numeric" }, model.memory === null ? "–" : bytes(model.memory)))))));
}

function stateOf(model) {
  if (model.loaded) return t("models.loaded");
  if (model.state === "on its way") return model.percent === null ? t("models.coming")
    : t("models.coming.percent", { n: model.percent });
  return t(model.state === "here" ? "models.here" : "models.lacking");
}

function upstream(one) {
  return h("li", { class: "row" },
    h("span", { class: `state ${one.up ? "up" : "down"}` }, t(one.up ? "upstream.up" : "upstream.down")),
    h("div", { class: "row-text" }, h("b", {}, one.url ?? `#${one.upstream}`),
      h("span", { class: "faint" }, one.reason ?? t("upstream.in.flight", { n: one.in_flight }))));
}
