// One hit of a search, as a card: the picture, why it was found, and the way to Immich.

import { h, icon } from "./dom.js";
import { photoPath } from "./client.js";
import { framed } from "./boxes.js";
import { immichLink } from "./visitor.js";
import { percent, t } from "./words.js";

const SHOWN_LINES = 2;

/** Return the card of `hit`; `open(event)` is called when it is clicked. */
export function card(hit, open) {
  const lines = hit.lines.filter((line) => line.box);
  const outside = immichLink(hit.id);
  return h("li", { class: "card", data: { id: hit.id } },
    h("a", { class: "card-link", href: photoPath(hit.id), onclick: open, "aria-label": label(hit) },
      framed(hit, lines),
      h("div", { class: "card-text" }, why(hit))),
    outside && h("a", { class: "card-out", href: outside, target: "_blank", rel: "noopener", title: t("open.immich"),
      "aria-label": t("open.immich.named", { name: hit.name }) }, icon("out")));
}

function label(hit) {
  const reasons = hit.lines.slice(0, SHOWN_LINES).map((line) => line.text);
  if (hit.clip) reasons.push(t("hit.similarity", { share: percent(hit.clip.similarity) }));
  return [hit.name, ...reasons].join(", ");
}

function why(hit) {
  const found = hit.lines.slice(0, SHOWN_LINES).map((line) => h("p", { class: "line" }, ...marked(line)));
  const more = hit.lines.length - SHOWN_LINES;
  return [
    ...found,
    more > 0 && h("p", { class: "faint" }, t("hit.more", { n: more })),
    h("p", { class: "badges" },
      hit.ocr && h("span", { class: hit.ocr.exact ? "badge strong" : "badge" },
        t(hit.ocr.exact ? "hit.exact" : "hit.text")),
      hit.clip && h("span", { class: "badge" }, t("hit.similarity", { share: percent(hit.clip.similarity) })),
      h("span", { class: "name" }, hit.name)),
  ];
}

/** Return a line's text, with what matches in `mark`. Spans count code points, not JavaScript's halves of them. */
export function marked(line) {
  const letters = Array.from(line.text);
  const pieces = [];
  let at = 0;
  for (const [start, end] of line.spans ?? []) {
    if (start > at) pieces.push(letters.slice(at, start).join(""));
    pieces.push(h("mark", {}, letters.slice(start, end).join("")));
    at = end;
  }
  pieces.push(letters.slice(at).join(""));
  return pieces;
}
