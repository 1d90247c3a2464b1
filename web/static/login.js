// The login with the service's key, where no session of Immich is known.

import { h, icon } from "./dom.js";
import { post } from "./client.js";
import { t } from "./words.js";

/** Return the form. `then` is called once the key was right. */
export function loginView(me, then) {
  const input = h("input", { id: "key", type: "password", autocomplete: "current-password", required: true,
    name: "key" });
  const problem = h("p", { class: "problem", role: "alert" });
  const button = h("button", { class: "primary", type: "submit" }, t("login.button"));
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    try {
      await post("login", { key: input.value });
      await then();
    } catch (error) {
      problem.textContent = explained(error);
      input.select();
    } finally {
      button.disabled = false;
    }
  }
  return h("div", { class: "login" },
    h("img", { src: "/ai/static/icon.svg", alt: "", width: 56, height: 56 }),
    h("h1", {}, "immich-bento"),
    me.login
      ? h("form", { onsubmit: submit },
          h("label", { for: "key" }, t("login.key")),
          input,
          button,
          problem,
          h("p", { class: "faint" }, t("login.hint")),
          me.immich && h("p", { class: "faint" }, t("login.immich")))
      : h("p", { class: "notice" }, icon("warning"), t("login.none")));
}

function explained(error) {
  if (error.code === "unauthorized") return t("login.wrong");
  if (error.code === "too_many_attempts") return t("login.slow", { why: error.message });
  return error.message;
}
