/** Every event as it came, one line each, with a filter; of any length. */

import { append, asText, copyButton, fill, h, icon, say } from "./dom.js";
import { milliseconds } from "./fold.js";
import { contains, duration, named } from "./format.js";
import { iconOf } from "./detail.js";
import { valueView } from "./values.js";
import { VirtualList } from "./virtual.js";
/** @import { Event } from "./fold.js" */

/** Milliseconds a search may take out of one frame. */
const SEARCH_MS = 5;

export class RawLog {
  /** @param {{ onReader: (atEnd: boolean) => void }} how */
  constructor({ onReader }) {
    this.list = new VirtualList({
      rowHeight: 26,
      make: () => this.#make(),
      show: (row, event, index) => this.#show(row, event, index),
      about: { class: "raw-list", role: "listbox", tabindex: "0", "aria-label": "Events", onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event) },
    });
    this.list.onReader = onReader;
    this.one = h("div", { class: "raw-one", tabindex: "0", role: "region", "aria-label": "The event" }, h("p", { class: "empty" }, "Choose an event."));
    this.element = h("div", { class: "raw" }, this.list.element, this.one);
    this.filter = { text: "", call: "", hidden: /** @type {Set<string>} */ (new Set()) };
  }

  /** @type {WeakMap<HTMLElement, any>} */ #parts = new WeakMap();
  /** @type {Event[]} */ #events = [];
  #shown = 0;
  #searched = 0;
  #start = NaN;
  /** @type {Event[]} */ #matches = [];
  #selected = -1;

  close() {
    this.list.close();
  }

  /** Search again from the first event. */
  refresh() {
    this.#searched = 0;
    this.#matches = [];
  }

  /** Whether all events were searched. */
  get settled() {
    return this.#searched >= this.#shown;
  }

  get matches() {
    return this.#matches.length;
  }

  /** @param {Event[]} events @param {number} shown the first so many are */
  draw(events, shown) {
    if (events !== this.#events || shown < this.#shown) this.refresh();
    this.#events = events;
    this.#shown = shown;
    if (events.length && Number.isNaN(this.#start)) this.#start = milliseconds(events[0].timestamp);
    const until = performance.now() + SEARCH_MS;
    while (this.#searched < shown) {
      const event = events[this.#searched++];
      if (this.#matching(event)) this.#matches.push(event);
      if (this.#searched % 128 === 0 && performance.now() > until) break;
    }
    this.list.set(this.#matches);
  }

  /** @param {Event} event */
  #matching(event) {
    const { text, call, hidden } = this.filter;
    if (call && event.call_id !== call) return false;
    if (hidden.size && hidden.has(groupOfType(event.event_type))) return false;
    return !text || event.event_type.includes(text) || (event.operation ?? "").toLowerCase().includes(text) || (event.module_name ?? "").toLowerCase().includes(text) || contains(event.data, text);
  }

  #make() {
    const sequence = h("span", { class: "raw-sequence num" });
    const time = h("span", { class: "raw-time num" });
    const mark = h("span", { class: "mark" });
    const type = h("span", { class: "raw-type" });
    const about = h("span", { class: "raw-about" });
    const row = h("div", { class: "raw-row", role: "option", onclick: () => this.#select(this.#parts.get(row).index) }, sequence, time, mark, type, about);
    this.#parts.set(row, { sequence, time, mark, type, about, kind: "", index: 0 });
    return row;
  }

  /** @param {HTMLElement} row @param {Event} event @param {number} index */
  #show(row, event, index) {
    const parts = this.#parts.get(row);
    const kind = event.event_type.replace(/_(start|end|error)$/, "");
    if (parts.kind !== kind) parts.mark.replaceChildren(icon(iconOf(kindIcon(kind)), kindIcon(kind)));
    Object.assign(parts, { kind, index });
    row.className = `raw-row${event.sequence === this.#selected ? " selected" : ""}${event.event_type.endsWith("_error") ? " is-error" : ""}`;
    row.id = `raw-${index}`;
    row.setAttribute("aria-selected", String(event.sequence === this.#selected));
    if (event.sequence === this.#selected) this.list.element.setAttribute("aria-activedescendant", row.id);
    row.dataset.sequence = String(event.sequence);
    say(parts.sequence, String(event.sequence));
    say(parts.time, duration(Math.max(0, milliseconds(event.timestamp) - this.#start)));
    say(parts.type, event.event_type);
    say(parts.about, about(event));
  }

  /** @param {number} index */
  #select(index) {
    const event = this.#matches[index];
    if (!event) return;
    this.#selected = event.sequence;
    const { data, ...envelope } = event;
    fill(this.one, h("div", { class: "label-line" }, h("strong", { class: "mono" }, event.event_type), h("span", { class: "spring" }), copyButton(() => asText(event), "Copy event")));
    append(this.one, [valueView({ ...envelope, data })]);
    this.list.reveal(index);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const at = this.#matches.findIndex((each) => each.sequence === this.#selected);
    this.#select(Math.min(this.#matches.length - 1, Math.max(0, (at < 0 ? -1 : at) + step)));
  }
}

/** @param {string} kind */
const kindIcon = (kind) => ({ token: "lm", reasoning: "lm", stream_reset: "lm", execution: "module", prediction: "module" })[kind] ?? kind;

/** @type {[RegExp, string][]} */
const TYPES = [
  [/^(module|execution|evaluate|compile)_|^prediction$/, "module"],
  [/^lm_|^(token|reasoning|stream_reset)$/, "lm"],
  [/^(tool|interpreter|retriever)_/, "tool"],
  [/^adapter_/, "adapter"],
  [/^trace_/, "trace"],
];

/** Which group of the filter a type belongs to. @param {string} type */
export const groupOfType = (type) => TYPES.find(([pattern]) => pattern.test(type))?.[1] ?? "event";

/** @param {Event} event */
function about(event) {
  const { data } = event;
  if (event.event_type === "token" || event.event_type === "reasoning") return `${data.field ?? (event.event_type === "reasoning" ? "thinking" : "text")} ${JSON.stringify(data.token ?? "")}`;
  return [event.module_name, event.operation !== event.module_name ? event.operation : "", named(data, 140)].filter(Boolean).join("  ");
}
