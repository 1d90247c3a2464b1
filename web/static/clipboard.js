// Copying text. Browsers give the clipboard to pages of https and localhost alone; elsewhere a selection is copied.

import { h, icon } from "./dom.js";
import { t } from "./words.js";

/** Put `text` on the clipboard; return whether it is there. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "off-screen", readonly: true, "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Return a button that copies what `text()` returns and says so. */
export function copyButton(text, label) {
  const words = h("span", { "aria-live": "polite" }, label);
  const button = h("button", { type: "button", class: "button", onclick: async () => {
    words.textContent = (await copied(text())) ? t("copied") : t("copy.failed");
    button.focus();
    setTimeout(() => { words.textContent = label; }, 2000);
  } }, icon("copy"), words);
  return button;
}
