/** What a program gives: each output field, typed while the model writes it, and its value once it is there. */

import { asText, copyButton, fill, grow, h, onScrollUp, say } from "./dom.js";
import { brief } from "./format.js";
import { titled } from "./schema.js";
import { valueView } from "./values.js";
/** @import { Run } from "./fold.js" */

/** The output of ReAct that its events tell better. */
const FOLDED = "trajectory";
/** Fields of an unknown program that are shown at once while they are written. */
const MANY = 6;

/** @typedef {{ element: HTMLElement, state: HTMLElement, body: HTMLElement, shown: unknown, live: boolean }} Slot */

export class OutputPanel {
  /** @param {any} program as `GET /programs` tells of it, null when it is not known */
  constructor(program) {
    this.program = program;
    this.list = h("div", { class: "outputs" });
    this.element = h("section", { class: "output-panel", "aria-label": "Outputs" }, this.list);
    onScrollUp(this.element, () => { this.#stuck = false; });
    this.element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
  }

  get schema() {
    return this.program?.output_schema;
  }

  /** @type {Map<string, Slot>} */ #slots = new Map();
  #stuck = true;
  #note = h("p", { class: "waiting muted" });

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    this.#stuck = scrollTop + clientHeight >= scrollHeight - 24;
  }

  /** @param {Run} run */
  draw(run) {
    const names = this.#names(run);
    for (const [name, slot] of this.#slots) {
      if (names.includes(name)) continue;
      slot.element.remove();
      this.#slots.delete(name);
    }
    names.forEach((name) => this.#show(name, run));
    if (run.outputs !== undefined) this.#order(names);
    this.#wait(run, names.length);
    if (run.status === "running" && this.#stuck) this.element.scrollTop = this.element.scrollHeight;
  }

  /** While they are written, outputs are in the order in which they began; then in that of the program. @param {string[]} names */
  #order(names) {
    const wanted = names.map((name) => /** @type {Slot} */ (this.#slots.get(name)).element);
    if (wanted.some((element, index) => this.list.children[index] !== element)) this.list.prepend(...wanted);
  }

  /** @param {Run} run @returns {string[]} */
  #names(run) {
    const declared = Object.keys(this.schema?.properties ?? {});
    if (run.outputs !== undefined) {
      const returned = isRecord(run.outputs) ? Object.keys(run.outputs) : ["output"];
      const names = [...declared.filter((name) => returned.includes(name)), ...returned.filter((name) => !declared.includes(name))];
      return names.sort((a, b) => Number(a === FOLDED) - Number(b === FOLDED));
    }
    const written = [...run.drafts.keys()];
    const others = written.filter((name) => name && !declared.includes(name)).slice(-MANY);
    // What a program of several strategies returns is not known before it does.
    const open = !declared.length || this.program?.kind === "Module";
    return [...(open ? others : []), ...declared.filter((name) => written.includes(name))];
  }

  /** @param {string} name @param {Run} run */
  #show(name, run) {
    const slot = this.#slots.get(name) ?? this.#make(name);
    if (run.outputs !== undefined) {
      const value = isRecord(run.outputs) ? run.outputs[name] : run.outputs;
      this.#settle(slot, value);
      return;
    }
    const field = run.drafts.get(name);
    if (!field) return;
    if (field.done && field.raw) return this.#settle(slot, field.value ?? field.text);
    if (!slot.live) fill(slot.body, h("div", { class: "prose" }));
    slot.live = true;
    const writing = !field.done && run.live?.writing === field;
    slot.element.classList.toggle("typing", writing);
    grow(/** @type {Element} */ (slot.body.firstChild), field.text);
    slot.shown = field.text;
    say(slot.state, field.done ? "" : field.reset && !field.text ? `again: ${field.reset}` : writing ? "writing" : "");
  }

  /** @param {Slot} slot @param {unknown} value */
  #settle(slot, value) {
    say(slot.state, "");
    slot.element.classList.remove("typing");
    if (slot.live && value === slot.shown) return;
    if (slot.live || slot.shown !== value) fill(slot.body, slot.element.dataset.field === FOLDED ? folded(value) : valueView(value));
    slot.live = false;
    slot.shown = value;
  }

  /** @param {string} name */
  #make(name) {
    const state = h("span", { class: "field-state" });
    const body = h("div", { class: "field-body" });
    const title = this.schema?.properties?.[name]?.title || titled(name);
    /** @type {Slot} */
    const slot = { element: h("div", { class: "output", data: { field: name } }), state, body, shown: this, live: false };
    slot.element.append(h("div", { class: "label-line" }, h("span", { class: "label" }, title), state, copyButton(() => asText(slot.shown), `Copy ${title}`)), body);
    if (name === "reasoning" || name === FOLDED) slot.element.classList.add("quiet-output");
    this.#slots.set(name, slot);
    this.list.append(slot.element);
    return slot;
  }

  /** @param {Run} run @param {number} shown */
  #wait(run, shown) {
    const waiting = run.status === "running" && !shown;
    if (waiting) say(this.#note, run.message || doing(run));
    if (waiting !== this.#note.isConnected) waiting ? this.list.append(this.#note) : this.#note.remove();
  }
}

/** What few readers want to see at once. @param {unknown} value */
function folded(value) {
  const details = h("details", { class: "json-entry" }, h("summary", null, h("span", { class: "json-brief" }, brief(value, 100))));
  details.addEventListener("toggle", () => details.childElementCount === 1 && details.append(valueView(value)));
  return details;
}

/** @param {Run} run */
export function doing(run) {
  const call = run.live;
  if (!call) return run.count ? "Starting…" : "Waiting for the first event…";
  const verb = { lm: "Asking", tool: "Using", adapter_format: "Writing the prompt with", adapter_parse: "Reading the answer with" }[call.kind] ?? "In";
  return `${verb} ${call.name}…`;
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
