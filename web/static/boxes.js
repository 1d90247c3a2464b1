// Boxes over a picture: corners are fractions of its width and height.

import { h, s } from "./dom.js";
import { pictureUrl } from "./client.js";

const points = (box) => [0, 2, 4, 6].map((at) => `${box[at]},${box[at + 1]}`).join(" ");

/** Return an SVG to lay over a picture of the same size, with one polygon for each line that has a box. */
export function textBoxes(lines) {
  return s("svg", { class: "boxes", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    lines.filter((line) => line.box).map((line) =>
      s("polygon", { class: "box", points: points(line.box), "data-n": line.n })));
}

/** Return the corners of the smallest upright rectangle around some boxes, or null where there is none. */
function around(lines) {
  const boxes = lines.map((line) => line.box).filter(Boolean);
  if (!boxes.length) return null;
  const xs = boxes.flatMap((box) => box.filter((_, at) => at % 2 === 0));
  const ys = boxes.flatMap((box) => box.filter((_, at) => at % 2 === 1));
  return { x1: Math.min(...xs), y1: Math.min(...ys), x2: Math.max(...xs), y2: Math.max(...ys) };
}

/**
 * Return where a picture lies in a frame, in fractions of the frame: filling it and cut at its sides, as long as all of
 * `focus` stays within; otherwise whole. `aspect`: width by height, of the picture and of the frame.
 */
export function placed(aspect, frame, focus) {
  const wide = aspect > frame;
  const cover = wide ? { width: aspect / frame, height: 1 } : { width: 1, height: frame / aspect };
  const whole = wide ? { width: 1, height: frame / aspect } : { width: aspect / frame, height: 1 };
  const fits = !focus || ((focus.x2 - focus.x1) * cover.width <= 0.96 && (focus.y2 - focus.y1) * cover.height <= 0.96);
  const size = fits ? cover : whole;
  const middle = focus && fits ? [(focus.x1 + focus.x2) / 2, (focus.y1 + focus.y2) / 2] : [0.5, 0.5];
  const along = (length, centre) =>
    length <= 1 ? (1 - length) / 2 : Math.min(0, Math.max(1 - length, 0.5 - centre * length));
  return { ...size, left: along(size.width, middle[0]), top: along(size.height, middle[1]) };
}

const FRAME = 4 / 3;

/** Return a frame of 4 by 3 with an asset's thumbnail, moved so that the boxes of `lines` are seen. */
export function framed(hit, lines) {
  const image = h("img", { src: pictureUrl(hit.id, "thumbnail"), alt: "", loading: "lazy", decoding: "async" });
  const layer = h("div", { class: "layer" }, image);
  const frame = h("div", { class: "frame" }, layer);
  image.addEventListener("load", () => {
    const place = placed(image.naturalWidth / image.naturalHeight, FRAME, around(lines));
    for (const [name, value] of Object.entries(place)) layer.style[name] = `${(value * 100).toFixed(3)}%`;
    if (lines.length) layer.append(textBoxes(lines));
    frame.classList.add("there");
  });
  image.addEventListener("error", () => frame.classList.add("broken"));
  return frame;
}
