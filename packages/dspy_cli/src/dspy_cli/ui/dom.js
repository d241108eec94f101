/** Making and changing elements. Text is only ever set as text: nothing here or elsewhere parses HTML. */

const SVG = "http://www.w3.org/2000/svg";
const SPRITE = new URL("icons.svg", import.meta.url).href;

/** @typedef {Node | string | number | null | undefined | false | Child[]} Child */

/**
 * A new element. `on…` are listeners, `class` and `text` what they say, booleans are there or not, `data` and
 * `style` are set key by key (style through the CSSOM, which the content security policy allows).
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, any> | null} [about] @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, about, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about ?? {})) set(element, name, value);
  append(element, children);
  return element;
}

/** @param {HTMLElement} element @param {string} name @param {any} value */
function set(element, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name === "class") element.className = value;
  else if (name === "text") element.textContent = value;
  else if (name === "value") /** @type {any} */ (element).value = value;
  else if (name === "data") Object.assign(element.dataset, value);
  else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, String(each));
  else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** @param {Element} element @param {Child[]} children */
export function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false) element.append(/** @type {any} */ (child));
  }
}

/** Put `children` in place of what is in `element`. @param {Element} element @param {...Child} children */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** @param {string} name of a symbol in icons.svg @param {string} [kind] */
export function icon(name, kind) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", kind ? `icon kind-${kind}` : "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
  return svg;
}

/** Set text if it is another one: a write would make the browser lay it out again. @param {Node} node @param {string} text */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Show text that mostly grows, as one text node to which only what came is added.
 * @param {Element} element @param {string} text
 */
export function grow(element, text) {
  const node = element.firstChild;
  if (!(node instanceof Text)) {
    element.textContent = text;
    return;
  }
  const shown = node.length;
  if (text.length >= shown && text.startsWith(node.data)) {
    if (text.length > shown) node.appendData(text.slice(shown));
  } else node.data = text;
}

/**
 * @param {string} label @param {string} name @param {(event: MouseEvent) => void} onclick @param {Record<string, any>} [about]
 */
export function iconButton(label, name, onclick, about = {}) {
  return h("button", { type: "button", class: "icon-button", title: label, "aria-label": label, onclick, ...about }, icon(name));
}

/** A button that copies what `text` returns, and says so. @param {() => string} text @param {string} label */
export function copyButton(text, label = "Copy") {
  const button = iconButton(label, "copy", async (event) => {
    event.stopPropagation();
    event.preventDefault();
    const done = await copy(text());
    button.replaceChildren(icon(done ? "check" : "error"));
    announce(done ? "Copied" : "Copying failed");
    setTimeout(() => button.replaceChildren(icon("copy")), 1200);
  }, { class: "icon-button copy" });
  return button;
}

/** @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text); // a page over plain HTTP from another machine has no clipboard
  }
}

/** @param {string} text */
function copyOldWay(text) {
  const area = h("textarea", { class: "visually-hidden", value: text, "aria-hidden": "true" });
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** A value as text to paste elsewhere. @param {unknown} value */
export const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "");

let lastSaid = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */ let saying;

/**
 * Tell a screen reader. What comes within `quietFor` of the last replaces what still waits.
 * @param {string} text @param {number} quietFor milliseconds
 */
export function announce(text, quietFor = 0) {
  const region = document.getElementById("live");
  if (!region) return;
  clearTimeout(saying);
  saying = setTimeout(() => {
    lastSaid = Date.now();
    region.textContent = text;
  }, Math.max(50, lastSaid + quietFor - Date.now()));
}

/**
 * Call back when the reader begins to scroll up. The scrolling itself is too late a sign: its first step is small,
 * and a page that follows something would undo it.
 * @param {HTMLElement} element @param {() => void} callback
 */
export function onScrollUp(element, callback) {
  const passive = { passive: true };
  let touched = 0;
  element.addEventListener("wheel", (event) => event.deltaY < 0 && callback(), passive);
  element.addEventListener("touchstart", (event) => { touched = event.touches[0].clientY; }, passive);
  element.addEventListener("touchmove", (event) => event.touches[0].clientY > touched && callback(), passive);
  element.addEventListener("pointerdown", (event) => event.target === element && callback(), passive); // its scroll bar
}

/** Whether the reader asked for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
