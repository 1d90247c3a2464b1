// For Immich's own page, where a proxy adds it: a button on a photo's address that opens this service's page of that
// photo beside it. It looks at the address alone, and at nothing of Immich's.
(() => {
  const PHOTO = /\/photos\/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/i;
  const WORDS = navigator.language.toLowerCase().startsWith("zh")
    ? { open: "文字与识别", close: "关闭文字与识别", panel: "照片中的文字" }
    : { open: "Text & recognition", close: "Close text & recognition", panel: "The text in this photo" };
  const STYLE = `
    :host { all: initial; }
    button { position: fixed; right: 16px; bottom: max(16px, env(safe-area-inset-bottom)); z-index: 2147483646;
      min-height: 44px; padding: 0 18px; font: 600 14px/1 system-ui, "PingFang SC", "Microsoft YaHei", sans-serif;
      color: #fff; background: #4456d6; border: 0; border-radius: 22px;
      box-shadow: 0 2px 12px #0006; cursor: pointer; }
    button:hover { background: #3747bd; }
    button:focus-visible { outline: 3px solid #fff; outline-offset: 2px; }
    iframe { position: fixed; inset: 0 0 0 auto; z-index: 2147483647; width: min(460px, 100vw); height: 100dvh;
      border: 0; box-shadow: 0 0 32px #0008; background: Canvas; color-scheme: light dark; }
    [hidden] { display: none; }`;

  const host = document.createElement("div");
  host.setAttribute("data-immich-bento", "");
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  root.adoptedStyleSheets = [sheet];
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = WORDS.open;
  button.setAttribute("aria-expanded", "false");
  root.append(button);
  let frame = null;
  let shown = null;

  function close() {
    frame?.remove();
    frame = null;
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", WORDS.open);
    button.focus();
  }

  function open() {
    frame = document.createElement("iframe");
    frame.title = WORDS.panel;
    frame.src = `/ai/assets/${shown}?panel`;
    frame.addEventListener("load", () => frame?.focus(), { once: true });
    root.append(frame);
    button.setAttribute("aria-expanded", "true");
    button.setAttribute("aria-label", WORDS.close);
  }

  function look() {
    const id = PHOTO.exec(location.pathname)?.[1].toLowerCase() ?? null;
    if (id === shown) return;
    shown = id;
    if (id === null) {
      if (frame) close();
      host.remove();
      return;
    }
    if (!host.isConnected) document.body.append(host);
    if (frame) frame.src = `/ai/assets/${id}?panel`;
  }

  button.addEventListener("click", () => (frame ? close() : open()));
  window.addEventListener("message", (event) => {
    if (event.origin === location.origin && event.source === frame?.contentWindow
      && event.data?.immichBento === "close") close();
  });
  window.addEventListener("popstate", look);
  setInterval(look, 500); // Immich changes the address without loading a page, and tells nobody
  look();
})();
