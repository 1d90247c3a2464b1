// What is asked for again and again while it is shown.

import { h, icon } from "./dom.js";
import { get } from "./client.js";

const EVERY = 5000;

/** Call `show` with the answer to `path`, at once and five seconds after each answer, until `gone` is aborted. An error
 * is shown in `element` instead. */
export function follow(path, gone, element, show) {
  let timer = 0;
  async function look() {
    try {
      show(await get(path, gone.signal));
      element.removeAttribute("aria-busy");
    } catch (error) {
      if (error.name === "AbortError") return;
      element.replaceChildren(h("p", { class: "notice", role: "alert" }, icon("warning"), error.message));
    }
    timer = setTimeout(look, EVERY);
  }
  gone.signal.addEventListener("abort", () => clearTimeout(timer));
  look();
}
