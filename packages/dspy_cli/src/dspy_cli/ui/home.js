/** The first page: the programs, what could not be loaded, the latest runs. */

import * as api from "./api.js";
import { fill, h, icon } from "./dom.js";
import { runsTable } from "./runs.js";
import { problemBox } from "./problem.js";

const LATEST = 8;
const REFRESH_MS = 5000;

export class HomePage {
  /** @param {{ list: any[], failures: any[] }} how */
  constructor({ list, failures }) {
    this.latest = h("div", null, h("p", { class: "empty" }, "…"));
    this.element = h("div", { class: "page" },
      h("header", { class: "page-head" }, h("h1", null, "Programs"), h("span", { class: "muted" }, list.length ? String(list.length) : "")),
      failures.length > 0 && h("section", { class: "failures", "aria-label": "Could not be loaded" }, failures.map(failure)),
      list.length ? h("ul", { class: "cards" }, list.map(card)) : h("div", { class: "blank" }, icon("logo"), h("p", null, "No programs yet."), h("p", { class: "muted" }, "Make one with ", h("code", null, "dspy-cli generate scaffold NAME"), ", then reload this page.")),
      h("section", { class: "latest", "aria-labelledby": "latest" }, h("header", { class: "page-head" }, h("h2", { id: "latest" }, "Recent runs"), h("span", { class: "spring" }), h("a", { href: "#/runs", class: "quiet-link" }, "All runs")), this.latest));
    this.#timer = setInterval(() => document.hidden || this.load(), REFRESH_MS);
    this.load();
  }

  #timer;

  close() {
    clearInterval(this.#timer);
  }

  async load() {
    try {
      const { runs } = await api.runs({ limit: LATEST });
      if (!this.latest.contains(document.activeElement)) fill(this.latest, runs.length ? runsTable(runs) : h("p", { class: "empty" }, "Nothing has run yet. Choose a program and try it."));
    } catch (error) {
      fill(this.latest, problemBox(error, () => this.load()));
    }
  }
}

/** @param {any} program */
function card(program) {
  const inputs = Object.entries(program.input_schema?.properties ?? {});
  const outputs = Object.keys(program.output_schema?.properties ?? {});
  const required = new Set(program.input_schema?.required ?? []);
  return h("li", null, h("a", { class: "card", href: `#/programs/${encodeURIComponent(program.name)}` },
    h("div", { class: "card-head" }, h("h2", null, program.name), h("span", { class: "spring" }), h("span", { class: "tag" }, program.kind)),
    h("p", { class: "card-about" }, program.description || h("span", { class: "muted" }, "No description.")),
    h("p", { class: "signature mono" }, inputs.map(([name], index) => [index > 0 && ", ", h("span", { class: required.has(name) ? "" : "optional-name" }, name)]), h("span", { class: "arrow" }, " → "), outputs.join(", ") || "…", program.kind === "Module" && outputs.length > 0 && ", …"),
    h("p", { class: "card-foot" }, icon("lm", "lm"), h("span", { class: "muted" }, program.model || "default model"), h("span", { class: "spring" }), program.streams && h("span", { class: "muted" }, "streams"))));
}

/** @param {any} failed */
function failure(failed) {
  return h("div", { class: "error-box" }, icon("error"), h("div", { class: "error-text" },
    h("div", { class: "error-head" }, h("strong", { class: "mono" }, failed.path)),
    h("p", { class: "error-message" }, failed.error),
    failed.hint && h("p", { class: "hint" }, icon("hint"), h("span", null, failed.hint))));
}
