/** The call tree with its waterfall: a virtual list of rows, one keyboard stop, arrows inside. */

import { h, icon, say } from "./dom.js";
import { took } from "./fold.js";
import { brief, cost, count, duration, named } from "./format.js";
import { iconOf } from "./detail.js";
import { rows } from "./outline.js";
import { place, ticks } from "./timeline.js";
import { VirtualList } from "./virtual.js";
/** @import { Call, Node, Note, Run } from "./fold.js" */
/** @import { Row, View } from "./outline.js" */

const ROW_HEIGHT = 32;
/** Rows above which the outline is made anew only a few times a second while it grows. */
const MANY = 1000;
const MANY_MS = 150;
const HURRIED_MS = 500;

export class Tree {
  /**
   * @param {object} how
   * @param {(node: Node, by: "reader") => void} how.onSelect
   * @param {() => void} how.onReader the reader scrolls
   * @param {(node: Node) => void} how.onOpen the reader wants to see a row's details
   */
  constructor(how) {
    this.#how = how;
    /** @type {View} */ this.view = { hidden: new Set(), closed: new Set(), match: null };
    /** @type {Row[]} */ this.rows = [];
    this.selected = "";
    this.list = new VirtualList({
      rowHeight: ROW_HEIGHT,
      make: () => this.#make(),
      show: (row, item, index) => this.#show(row, item, index),
      about: { class: "tree", role: "tree", tabindex: "0", "aria-label": "Calls", onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event) },
    });
    this.list.onReader = () => how.onReader();
    this.axis = h("div", { class: "axis" });
    this.head = h("div", { class: "tree-head", "aria-hidden": "true" },
      h("span", null, "Call"), h("span", { class: "num time" }, "Time"), h("span", { class: "num tokens" }, "Tokens"), h("span", { class: "num cost" }, "Cost"), this.axis);
    this.element = h("div", { class: "tree-panel" }, this.head, this.list.element);
    this.#observer = new ResizeObserver(() => { this.#length = 0; });
    this.#observer.observe(this.axis);
  }

  #how;
  #observer;
  #structure = -1;
  #at = -1;
  #made = 0;
  /** @type {Run | null} */ #run = null;
  #length = 0;
  /** @type {WeakMap<HTMLElement, any>} */ #parts = new WeakMap();

  close() {
    this.#observer.disconnect();
    this.list.close();
  }

  /** @param {Run} run @param {number} now the time of the run, on its own clock @param {boolean} hurried there is more to come at once */
  draw(run, now, hurried = false) {
    const changed = run !== this.#run || run.structure !== this.#structure;
    const due = this.rows.length < MANY || performance.now() - this.#made > (hurried ? HURRIED_MS : MANY_MS) || run.status !== "running";
    this.#run = run;
    this.now = now;
    if (changed && due) this.#outline(run);
    this.line = { start: run.start, end: Math.max(run.end ?? now, run.start + 1) };
    this.#ticks(this.line.end - this.line.start);
    this.list.draw();
    return changed && !due;
  }

  /** Make the rows anew, after the filter has changed. */
  refresh() {
    if (this.#run) this.#outline(this.#run);
    this.list.draw();
  }

  /** @param {Run} run */
  #outline(run) {
    this.#structure = run.structure;
    this.#made = performance.now();
    this.rows = rows(run, this.view);
    this.#at = this.indexOf(this.selected);
    this.list.set(this.rows);
  }

  /** @param {number} length */
  #ticks(length) {
    if (Math.abs(length - this.#length) < this.#length * 0.004 && this.#length) return;
    this.#length = length;
    const wanted = Math.max(3, Math.min(6, Math.floor(this.axis.clientWidth / 64)));
    const [, step = length] = ticks(length, wanted);
    this.element.style.setProperty("--tick", `${(100 * step) / length}%`);
    const marks = ticks(length, wanted).filter((mark) => mark / length < 0.93);
    this.axis.replaceChildren(...marks.map((mark) => h("span", { class: "tick", style: { left: `${(100 * mark) / length}%` } }, mark === 0 ? "0" : duration(mark).replace(".00", ""))));
  }

  /** @param {string} id */
  indexOf(id) {
    return this.rows.findIndex((row) => row.node.id === id);
  }

  /** Select a row, and bring it into sight. @param {string} id */
  select(id) {
    this.selected = id;
    this.#at = this.indexOf(id);
    if (this.#at >= 0) this.list.reveal(this.#at);
    else this.list.draw();
  }

  /** Bring the selected row into sight. */
  reveal() {
    if (this.#at >= 0) this.list.reveal(this.#at);
  }

  /** Unfold all that is around a call. @param {Node} node */
  unfold(node) {
    let changed = false;
    for (let each = node.parent; each; each = each.parent) changed = this.view.closed.delete(each.id) || changed;
    if (changed) this.refresh();
  }

  #make() {
    const twisty = h("span", { class: "twisty" });
    const mark = h("span", { class: "mark" });
    const name = h("span", { class: "name" });
    const about = h("span", { class: "row-about" });
    const time = h("span", { class: "num time" });
    const tokens = h("span", { class: "num tokens" });
    const price = h("span", { class: "num cost" });
    const wait = h("span", { class: "bar-wait" });
    const bar = h("span", { class: "bar" }, wait);
    const row = h("div", { class: "row", role: "treeitem", onclick: (/** @type {MouseEvent} */ event) => this.#click(event, row) },
      h("span", { class: "title" }, twisty, mark, name, about), time, tokens, price, h("span", { class: "lane" }, bar));
    this.#parts.set(row, { twisty, mark, name, about, time, tokens, price, bar, wait, kind: "", open: undefined });
    return row;
  }

  /** @param {HTMLElement} row @param {Row} item @param {number} index */
  #show(row, item, index) {
    const parts = this.#parts.get(row);
    const { node } = item;
    const status = node.is === "call" ? node.status : "note";
    if (parts.kind !== node.kind) parts.mark.replaceChildren(icon(iconOf(node.kind), node.kind));
    if (parts.open !== item.open) parts.twisty.replaceChildren(...(item.open === null ? [] : [icon(item.open ? "down" : "right")]));
    Object.assign(parts, { kind: node.kind, open: item.open, index });
    const selected = node.id === this.selected;
    row.className = `row is-${status} kind-${node.kind}${selected ? " selected" : ""}`;
    row.id = `row-${index}`;
    row.dataset.id = node.id;
    row.style.setProperty("--depth", String(Math.min(item.depth, 16)));
    attributes(row, { "aria-level": item.depth + 1, "aria-posinset": item.position, "aria-setsize": item.size, "aria-selected": selected, "aria-expanded": item.open, "aria-label": `${node.kind} ${node.name}, ${status}` });
    if (selected) this.list.element.setAttribute("aria-activedescendant", row.id);
    say(parts.name, node.name);
    if (node.is === "call") this.#call(parts, node);
    else this.#note(parts, node);
  }

  /** @param {any} parts @param {Call} call */
  #call(parts, call) {
    const { result } = call;
    say(parts.about, aboutCall(call));
    say(parts.time, duration(took(call, this.now)));
    const used = result.input_tokens == null && result.output_tokens == null ? "" : `${count(result.input_tokens)} → ${count(result.output_tokens)}`;
    say(parts.tokens, used);
    say(parts.price, result.cost_usd == null ? "" : cost(result.cost_usd));
    const end = call.end ?? this.now;
    this.#bar(parts, { start: call.start, end });
    const first = result.time_to_first_token_ms ?? (call.firstToken ?? end) - call.start;
    const wait = call.kind === "lm" && end > call.start ? first / (end - call.start) : 0;
    parts.wait.style.setProperty("width", `${Math.round(1000 * Math.min(1, wait)) / 10}%`);
  }

  /** @param {any} parts @param {Note} note */
  #note(parts, note) {
    say(parts.about, note.kind === "status" ? String(note.event.data.message ?? "") : named(note.event.data));
    say(parts.time, "");
    say(parts.tokens, "");
    say(parts.price, "");
    parts.wait.style.setProperty("width", "0");
    this.#bar(parts, { start: note.time, end: note.time });
  }

  /** @param {any} parts @param {{ start: number, end: number }} span */
  #bar(parts, span) {
    const { left, width } = place(span, this.line);
    parts.bar.style.setProperty("left", `${(left * 100).toFixed(2)}%`);
    parts.bar.style.setProperty("width", `${(width * 100).toFixed(2)}%`);
  }

  line = { start: 0, end: 1 };
  now = 0;

  /** @param {MouseEvent} event @param {HTMLElement} row */
  #click(event, row) {
    const item = this.rows[this.#parts.get(row).index];
    if (!item) return;
    if (/** @type {Element} */ (event.target).closest(".twisty") && item.open !== null) return this.#toggle(item);
    this.#how.onSelect(item.node, "reader");
    this.#how.onOpen(item.node);
  }

  /** @param {Row} item */
  #toggle(item) {
    const { closed } = this.view;
    if (!closed.delete(item.node.id)) closed.add(item.node.id);
    this.refresh();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = KEYS[/** @type {keyof typeof KEYS} */ (event.key)];
    if (!act || !this.rows.length) return;
    event.preventDefault();
    event.stopPropagation();
    const index = Math.max(0, this.indexOf(this.selected));
    const item = this.rows[index];
    const next = act(this.rows, index);
    if (next === "open") return this.#how.onOpen(item.node);
    if (next === "toggle") return this.#toggle(item);
    const target = this.rows[Math.min(this.rows.length - 1, Math.max(0, next))];
    this.#how.onSelect(target.node, "reader");
    this.select(target.node.id);
  }
}

const PAGE = 12;

/** What a key does: the row to go to, or what happens to this one. */
const KEYS = {
  ArrowDown: (/** @type {Row[]} */ _, /** @type {number} */ index) => index + 1,
  ArrowUp: (/** @type {Row[]} */ _, /** @type {number} */ index) => index - 1,
  PageDown: (/** @type {Row[]} */ _, /** @type {number} */ index) => index + PAGE,
  PageUp: (/** @type {Row[]} */ _, /** @type {number} */ index) => index - PAGE,
  Home: () => 0,
  End: (/** @type {Row[]} */ all) => all.length - 1,
  ArrowRight: (/** @type {Row[]} */ all, /** @type {number} */ index) => (all[index].open === false ? "toggle" : index + (all[index].open ? 1 : 0)),
  ArrowLeft: (/** @type {Row[]} */ all, /** @type {number} */ index) => (all[index].open ? "toggle" : outer(all, index)),
  Enter: () => "open",
  " ": () => "open",
};

/** @param {Row[]} all @param {number} index */
function outer(all, index) {
  let at = index;
  while (at > 0 && all[at].depth >= all[index].depth) at -= 1;
  return at;
}

/** @param {Element} element @param {Record<string, any>} values */
function attributes(element, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
  }
}

/** What a row says beside the name. @param {Call} call */
function aboutCall(call) {
  if (call.error) return call.error.message;
  if (call.status === "running" && call.status_message) return call.status_message;
  const shown = ABOUT[/** @type {keyof typeof ABOUT} */ (call.kind)];
  return shown ? shown(call) : "";
}

const ABOUT = {
  lm(/** @type {Call} */ call) {
    let last = null;
    for (const field of call.fields.values()) if (!last || !field.done || field.lane === "field") last = field;
    if (!last) return call.status === "running" ? "waiting for the first token" : brief(call.result.outputs?.[0] ?? "", 100);
    const label = last.lane === "reasoning" ? "thinking" : last.lane === "tools" ? "" : last.name;
    const text = last.done ? brief(last.text, 100) : brief(last.text.slice(-90), 90);
    return label ? `${label}: ${text}` : text;
  },
  tool: (/** @type {Call} */ call) => `(${named(call.given.arguments ?? {}, 60)})${"result" in call.result ? ` → ${brief(call.result.result, 80)}` : ""}`,
  retriever: (/** @type {Call} */ call) => named(call.given.inputs ?? {}, 80),
  module: (/** @type {Call} */ call) => (call.operation && call.operation !== call.name ? call.operation : named(call.given.inputs ?? {}, 90)),
  trace: (/** @type {Call} */ call) => (Object.keys(call.given).length ? named(call.given, 80) : ""),
  adapter_format: () => "format",
  adapter_parse: () => "parse",
  interpreter: (/** @type {Call} */ call) => named(call.given.inputs ?? {}, 80),
};
