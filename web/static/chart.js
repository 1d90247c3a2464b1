// A small chart of the last hour, drawn as SVG.

import { h, s } from "./dom.js";
import { number, t } from "./words.js";

const WIDTH = 600;
const HEIGHT = 120;

/** Return the next round number at or above `value`: 1, 2 or 5 with zeros. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/**
 * Return a chart. `series`: lists of numbers or null, the latest last, all of one length; `names`: what each is called;
 * `unit`: written after numbers; `span`: seconds between two numbers.
 */
export function chart({ title, series, names, unit, span }) {
  const known = series.flat().filter((value) => value !== null);
  const top = Math.max(...known, 0) > 0 ? roundUp(Math.max(...known)) : 1;
  const count = series[0].length;
  const x = (at) => (count > 1 ? (at / (count - 1)) * WIDTH : WIDTH);
  const y = (value) => HEIGHT - (value / top) * (HEIGHT - 4);
  const latest = series.map((values) => values.filter((value) => value !== null).at(-1) ?? null);
  const shown = latest.map((value, at) => `${names[at]} ${value === null ? "–" : `${number(value, 2)} ${unit}`}`);
  const cursor = s("line", { class: "cursor away", y1: 0, y2: HEIGHT, x1: 0, x2: 0 });
  const value = h("span", { class: "chart-value" }, shown.join(" · "));
  const plot = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "chart-plot",
    role: "img", "aria-label": `${title}: ${shown.join(", ")}` },
    [0.5, 1].map((part) => s("line", { class: "rule", x1: 0, x2: WIDTH, y1: y(top * part), y2: y(top * part) })),
    s("line", { class: "rule base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
    series.map((values, at) => pathsOf(values, x, y).map(([line, area]) => [
      at === 0 ? s("path", { class: "area", d: area }) : null,
      s("path", { class: `line line-${at}`, d: line }),
    ])).flat(2).filter(Boolean),
    cursor);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const at = Math.round(((event.clientX - box.left) / box.width) * (count - 1));
    if (!(at >= 0 && at < count)) return;
    cursor.classList.remove("away");
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    const ago = t("chart.ago", { n: number(((count - 1 - at) * span) / 60) });
    value.textContent = `${ago}: ${series.map((values, i) =>
      `${names[i]} ${values[at] === null ? "–" : number(values[at], 2)}`).join(" · ")} ${unit}`;
  });
  plot.addEventListener("pointerleave", () => {
    cursor.classList.add("away");
    value.textContent = shown.join(" · ");
  });
  return h("figure", { class: "chart" },
    h("figcaption", {}, h("span", {}, title), value),
    h("div", { class: "chart-box" },
      h("span", { class: "chart-top", "aria-hidden": "true" }, `${number(top, 3)} ${unit}`), plot),
    h("div", { class: "chart-axis", "aria-hidden": "true" },
      h("span", {}, t("chart.ago", { n: number(((count - 1) * span) / 60) })), h("span", {}, t("chart.now"))));
}

/** Return the lines, and the areas below them, of each run of numbers without a gap. */
function pathsOf(values, x, y) {
  const runs = [];
  let run = [];
  values.forEach((value, at) => {
    if (value === null) {
      if (run.length) runs.push(run);
      run = [];
    } else {
      run.push([x(at), y(value)]);
    }
  });
  if (run.length) runs.push(run);
  return runs.map((points) => {
    const line = `M${points.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L")}`;
    return [points.length > 1 ? line : `${line}h1`,
      `${line}L${points.at(-1)[0].toFixed(1)} ${HEIGHT}L${points[0][0].toFixed(1)} ${HEIGHT}Z`];
  });
}
