/** A JSON value as elements: text as it is, images as pictures, everything else as a tree that unfolds. */

import { asText, copyButton, h } from "./dom.js";
import { brief, count } from "./format.js";

/** Characters of one text that are shown before it is asked for. */
const MAX_TEXT = 12_000;
const MAX_ITEMS = 200;
/** An SVG could link and style: only pictures made of pixels are shown. */
const PICTURE = /^data:image\/(png|jpeg|gif|webp|avif);base64,/i;

/** @param {unknown} value @returns {HTMLElement} */
export function valueView(value) {
  if (value === undefined) return h("span", { class: "muted" }, "–");
  if (typeof value === "string") return textView(value);
  if (typeof value !== "object" || value === null) return h("code", { class: `json json-${value === null ? "null" : typeof value}` }, String(value));
  if (Object.keys(value).length === 0) return h("code", { class: "json json-empty" }, Array.isArray(value) ? "[]" : "{}");
  return h("div", { class: "json-tree" }, entries(value));
}

/** How DSPy writes an image, a sound or a file into text. */
const MARKED = /^<<CUSTOM-TYPE-START-IDENTIFIER>>(.*)<<CUSTOM-TYPE-END-IDENTIFIER>>$/s;

/** What DSPy's markup stands for, null for other text. @param {string} text */
function unmarked(text) {
  try {
    const parts = JSON.parse(MARKED.exec(text)?.[1] ?? "null");
    return Array.isArray(parts) ? parts.map((part) => part.image_url?.url ?? part.file?.file_data ?? part.text ?? part) : null;
  } catch {
    return null;
  }
}

/** @param {string} text @returns {HTMLElement} */
export function textView(text) {
  const parts = text.startsWith("<<CUSTOM-TYPE") ? unmarked(text) : null;
  if (parts) return h("div", null, parts.map(valueView));
  if (PICTURE.test(text)) return picture(text);
  if (text === "") return h("span", { class: "muted" }, "empty");
  const shown = h("div", { class: "prose" }, text.slice(0, MAX_TEXT));
  if (text.length <= MAX_TEXT) return shown;
  const more = h("button", { type: "button", class: "quiet", onclick: () => shown.replaceChildren(text) }, `Show all ${count(text.length)} characters`);
  shown.append("… ", more);
  return shown;
}

/** @param {string} uri */
function picture(uri) {
  return h("figure", { class: "picture" }, h("img", { src: uri, alt: "Image" }), h("figcaption", { class: "muted" }, `${brief(uri, 28)} ${count(Math.round(uri.length * 0.75 / 1024))} KiB`));
}

/** @param {object} value */
function entries(value) {
  const all = Object.entries(value);
  const lines = all.slice(0, MAX_ITEMS).map(([key, item]) => entry(key, item));
  if (all.length > MAX_ITEMS) {
    const more = h("button", { type: "button", class: "quiet", onclick: () => more.replaceWith(...all.slice(MAX_ITEMS).map(([key, item]) => entry(key, item))) }, `${count(all.length - MAX_ITEMS)} more`);
    lines.push(more);
  }
  return lines;
}

/** @param {string} key @param {unknown} item */
function entry(key, item) {
  const label = h("span", { class: "json-key" }, key);
  if (typeof item !== "object" || item === null || Object.keys(item).length === 0) return h("div", { class: "json-entry" }, label, valueView(item));
  const details = h("details", { class: "json-entry" }, h("summary", null, label, h("span", { class: "json-brief" }, brief(item, 90))));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(valueView(item));
  });
  if (brief(item, 400).length < 200 && Object.keys(item).length < 6) {
    details.open = true;
  }
  return details;
}

/** A titled value with a button that copies it. @param {string} label @param {unknown} value */
export function labelled(label, value) {
  return h("div", { class: "labelled" }, h("div", { class: "label-line" }, h("span", { class: "label" }, label), copyButton(() => asText(value), `Copy ${label}`)), valueView(value));
}
