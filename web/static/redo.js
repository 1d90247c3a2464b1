// Doing a picture again: asked for, waited for, and what is different afterwards.

import { h } from "./dom.js";
import { get, post } from "./client.js";
import { difference } from "./diff.js";
import { number, t } from "./words.js";

const AGAIN_AFTER = 3000; // milliseconds before a model that is on its way is asked for again
const FACES_WITHIN = 90_000; // milliseconds that Immich's own job has, before nobody waits for it any more
const LOOK_EVERY = 1500;

const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

/** Do one task of a picture again; `tell(text)` hears how it goes. Waits for a model that is on its way. */
export async function redo(id, task, tell) {
  const began = Date.now();
  const clock = setInterval(() => tell(t("redo.working", { n: number(Math.round((Date.now() - began) / 1000)) })),
    1000);
  tell(t("redo.working", { n: 0 }));
  try {
    for (;;) {
      try {
        return await post(`assets/${id}/redo`, { tasks: [task] });
      } catch (error) {
        if (error.code !== "model_on_its_way") throw error;
        tell(error.message);
        await pause(AGAIN_AFTER);
      }
    }
  } finally {
    clearInterval(clock);
  }
}

/**
 * Wait until Immich has looked for faces again, which `before` (an answer of the same kind) tells apart by its date, or
 * its time is over. Return what there is then.
 */
export async function facesAfter(id, before, tell) {
  const until = Date.now() + FACES_WITHIN;
  let now = before;
  while (JSON.stringify(now) === JSON.stringify(before) && Date.now() < until) {
    await pause(LOOK_EVERY);
    tell(t("redo.queued"));
    now = await get(`assets/${id}/faces`);
  }
  return now;
}

/** Return what reading a picture again has changed, for a person. */
export function textDifference(before, after, model) {
  const changes = difference(before.map((line) => line.text), after.map((line) => line.text));
  const count = (kind) => changes.filter((change) => change.kind === kind).length;
  const head = h("p", {}, t("diff.text", { model: model ?? "?", n: number(after.length) }), " ",
    count("gone") + count("new") ? t("diff.changes", { new: count("new"), gone: count("gone") }) : t("diff.none"));
  if (!(count("gone") + count("new"))) return [head];
  return [head, h("ol", { class: "diff" }, changes.filter((change) => change.kind !== "same").map((change) =>
    h("li", { class: change.kind },
      h("span", { class: "sign", "aria-label": t(`diff.${change.kind}`) }, change.kind === "new" ? "+" : "−"),
      h(change.kind === "new" ? "ins" : "del", {}, change.text))))];
}
