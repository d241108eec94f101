/** The page of one program: its form, and beside it the run that the form started. */

import * as api from "./api.js";
import { announce, fill, h, icon, iconButton } from "./dom.js";
import { brief, duration } from "./format.js";
import { Form } from "./form.js";
import { OutputPanel } from "./output.js";
import { problemBox } from "./problem.js";
import { RunView } from "./run.js";
import { turnFields } from "./schema.js";
import { newRun } from "./fold.js";

export class ProgramPage {
  /**
   * @param {any} program of `GET /programs`
   * @param {{ run?: string, server: any, programs: Map<string, any> }} how `run` is one to show, and to take inputs from
   */
  constructor(program, { run = "", server, programs }) {
    this.program = program;
    this.server = server;
    this.programs = programs;
    this.form = new Form(program.input_schema, {
      draft: this.#stored(),
      turns: turnFields(program.input_schema, program.output_schema),
      onChange: (draft) => this.#keep(draft),
    });
    this.#build();
    if (run) this.#open(run, true);
    else this.#empty();
  }

  /** @type {RunView | null} */ #view = null;
  /** @type {AbortController | null} a call that is waited for */ #waiting = null;
  #timer = 0;

  close() {
    this.#view?.close();
    this.#waiting?.abort();
    clearInterval(this.#timer);
  }

  #build() {
    const { program } = this;
    this.streaming = h("input", { type: "checkbox", role: "switch", id: "streaming", checked: this.#streams(), onchange: () => this.#prefer() });
    this.runButton = h("button", { type: "submit", class: "primary" }, icon("play"), "Run", h("kbd", null, navigator.platform.includes("Mac") ? "⌘↵" : "Ctrl ↵"));
    this.cancelButton = h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.cancel() }, icon("stop"), "Cancel");
    this.result = h("div", { class: "result" });
    const form = h("form", { class: "program-form", novalidate: true, "aria-label": "Inputs", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); this.run(); } },
      h("header", { class: "program-head" },
        h("div", { class: "program-title" }, h("h1", null, program.name), h("span", { class: "tag" }, program.kind), program.model && h("span", { class: "tag model", title: "Model" }, program.model)),
        program.description && h("p", { class: "about" }, program.description)),
      h("div", { class: "form-bar" }, h("h2", null, "Inputs"), h("span", { class: "spring" }), this.form.switch, iconButton("Start over with the defaults", "again", () => this.#reset())),
      this.form.element,
      h("footer", { class: "form-foot" }, h("label", { class: "check switch", for: "streaming", title: "Show every step while the program runs" }, this.streaming, h("span", null, "Streaming")), h("span", { class: "spring" }), this.cancelButton, this.runButton));
    this.element = h("div", { class: "program" }, form, this.result);
  }

  // --- what is kept ---

  get #draftKey() {
    return `dspy-cli:draft:${this.program.name}`;
  }

  get #streamKey() {
    return `dspy-cli:streaming:${this.program.name}`;
  }

  #stored() {
    try {
      return JSON.parse(sessionStorage.getItem(this.#draftKey) ?? "null") ?? undefined;
    } catch {
      return undefined;
    }
  }

  /** @param {any} draft */
  #keep(draft) {
    try {
      sessionStorage.setItem(this.#draftKey, JSON.stringify(draft));
    } catch {
      sessionStorage.removeItem(this.#draftKey); // a picture may be more than a browser keeps
    }
  }

  #reset() {
    sessionStorage.removeItem(this.#draftKey);
    this.form.set(new Form(this.program.input_schema, { onChange() {} }).draft);
  }

  #streams() {
    const kept = localStorage.getItem(this.#streamKey);
    return kept === null ? this.program.streams : kept === "on";
  }

  #prefer() {
    localStorage.setItem(this.#streamKey, this.streaming?.checked ? "on" : "off");
  }

  // --- running ---

  async run() {
    if (this.form.problem || this.runButton?.disabled) return;
    this.form.clear();
    const { body } = this.form;
    this.#busy(true);
    try {
      if (this.streaming?.checked) await this.#stream(body);
      else await this.#call(body);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** @param {any} body */
  async #stream(body) {
    const { id } = await api.start(this.program.name, body);
    history.replaceState(null, "", `#/programs/${encodeURIComponent(this.program.name)}/${encodeURIComponent(id)}`);
    this.#open(id, false);
  }

  /** @param {string} id @param {boolean} takeInputs */
  async #open(id, takeInputs) {
    this.#view?.close();
    this.#view = new RunView(id, {
      embedded: true, server: this.server, programs: this.programs,
      onStatus: (status) => this.#busy(status === "running" || status === "queued"),
    });
    fill(/** @type {Element} */ (this.result), this.#view.element);
    if (!takeInputs || this.#stored()) return;
    const told = await api.run(id).catch(() => null);
    if (told?.inputs) this.form.set(told.inputs);
  }

  /** @param {any} body */
  async #call(body) {
    this.#view?.close();
    this.#view = null;
    const waiting = (this.#waiting = new AbortController());
    const began = performance.now();
    const time = h("span", { class: "num" });
    const tick = () => (time.textContent = duration(performance.now() - began));
    this.#timer = window.setInterval(tick, 100);
    fill(/** @type {Element} */ (this.result), h("div", { class: "plain-result" }, h("p", { class: "waiting muted" }, "Running… ", time)));
    try {
      const { id, outputs } = await api.call(this.program.name, body, waiting.signal);
      this.#show(id, outputs, performance.now() - began);
    } finally {
      clearInterval(this.#timer);
      this.#waiting = null;
      this.#busy(false);
    }
  }

  /** @param {string} id @param {any} outputs @param {number} ms */
  #show(id, outputs, ms) {
    const panel = new OutputPanel(this.program);
    panel.draw({ ...newRun(id), status: "ok", outputs });
    fill(/** @type {Element} */ (this.result), h("div", { class: "plain-result" },
      h("div", { class: "run-line" }, h("span", { class: "status status-ok" }, "ok"), h("span", { class: "num" }, duration(ms)), h("span", { class: "spring" }), id && h("a", { class: "button", href: `#/runs/${encodeURIComponent(id)}` }, icon("lm"), "See its calls")),
      panel.element));
    announce(`Done: ${brief(outputs, 200)}`);
  }

  /** @param {any} error */
  #failed(error) {
    this.#busy(false);
    const result = /** @type {Element} */ (this.result);
    if (error.name === "AbortError") return fill(result, h("p", { class: "empty" }, "Cancelled."));
    const errors = error.document?.errors;
    if (error.status === 422 && Array.isArray(errors)) {
      this.form.errors(errors);
      announce("Some inputs are not valid");
      if (!this.#view) this.#empty();
      return;
    }
    const id = error.document?.run;
    this.#view?.close();
    this.#view = null;
    fill(result, h("div", { class: "plain-result" }, problemBox(error), id && h("a", { class: "button", href: `#/runs/${encodeURIComponent(id)}` }, "See its calls")));
  }

  async cancel() {
    this.#waiting?.abort();
    await this.#view?.cancel();
  }

  /** @param {boolean} busy */
  #busy(busy) {
    if (this.runButton) this.runButton.hidden = this.runButton.disabled = busy;
    if (this.cancelButton) this.cancelButton.hidden = !busy;
  }

  #empty() {
    fill(/** @type {Element} */ (this.result), h("div", { class: "blank" }, icon("logo"), h("p", null, "Fill in the inputs and run the program."), h("p", { class: "muted" }, this.streaming?.checked ? "Every step shows up here as it happens." : "What it returns shows up here.")));
  }

  /** @param {KeyboardEvent} event @returns {boolean} */
  key(event) {
    return this.#view?.key(event) ?? false;
  }
}
