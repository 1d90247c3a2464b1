// Elements made of plain values. Text only ever becomes a text node, so that nothing that was read in a picture is
// taken for HTML; the page's policy forbids the other ways (require-trusted-types-for 'script').

const SVG = "http://www.w3.org/2000/svg";

/** Return an HTML element. `props`: attributes; `on…`: listeners; `style`: an object; null and false are left out. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Return an SVG element, as `h` does. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const ICONS = {
  search: ["M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14Z", "m16.2 16.2 4.3 4.3"],
  library: ["M4 5h7v6H4z", "M13 5h7v6h-7z", "M4 13h7v6H4z", "M13 13h7v6h-7z"],
  system: ["M3 12h4l3-8 4 16 3-8h4"],
  left: ["m15 5-7 7 7 7"],
  right: ["m9 5 7 7-7 7"],
  close: ["m6 6 12 12", "M18 6 6 18"],
  out: ["M14 4h6v6", "M20 4l-9 9", "M18 14v5H5V6h5"],
  again: ["M20 11a8 8 0 1 0-2.3 6.7", "M20 5v6h-6"],
  copy: ["M9 9h11v11H9z", "M5 15H4V4h11v1"],
  check: ["m5 12.5 4.5 4.5L19 7"],
  warning: ["M12 4 2.8 20h18.4z", "M12 10v4.5", "M12 17.4v.1"],
  leave: ["M10 4H5v16h5", "M14 8l4 4-4 4", "M18 12H9"],
  picture: ["M4 5h16v14H4z", "m4 16 5-5 4 4 3-3 4 4", "M15.5 8.5v.1"],
};

/** Return an icon of 24 by 24 units, hidden from screen readers: what it means stands beside it, or in a label. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    ICONS[name].map((d) => s("path", { d })));
}
