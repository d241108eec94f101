/** Runs as a table: the latest few, or the whole history with a filter. */

import * as api from "./api.js";
import { fill, h, icon, iconButton } from "./dom.js";
import { ago, clock, count, duration } from "./format.js";
import { problemBox } from "./problem.js";

export const STATUSES = ["queued", "running", "ok", "error", "cancelled", "timeout", "interrupted", "orphaned"];
const REFRESH_MS = 3000;
const PAGE = 100;

/** @param {any[]} runs */
export function runsTable(runs) {
  if (!runs.length) return h("p", { class: "empty" }, "No runs.");
  return h("div", { class: "table-scroll" }, h("table", { class: "runs-table" },
    h("thead", null, h("tr", null, ["Status", "Program", "Started", "Duration", "Events", "Run"].map((name, index) => h("th", { scope: "col", class: ["", "", "", "num", "num wide", "wide"][index] }, name)))),
    h("tbody", null, runs.map(row))));
}

/** @param {any} run */
function row(run) {
  const link = `#/runs/${encodeURIComponent(run.id)}`;
  const running = run.status === "running" || run.status === "queued";
  return h("tr", { onclick: (/** @type {MouseEvent} */ event) => { if (!(/** @type {Element} */ (event.target).closest("a")) && !getSelection()?.toString()) location.hash = link; } },
    h("td", null, h("span", { class: `status status-${run.status}` }, run.status)),
    h("td", null, h("a", { href: link, class: "run-link" }, run.program || "–")),
    h("td", { title: run.started ? clock(run.started) : "" }, run.started ? ago(run.started) : "–"),
    h("td", { class: "num" }, run.seconds == null ? "–" : `${duration(run.seconds * 1000)}${running ? "…" : ""}`),
    h("td", { class: "num wide" }, count(run.events)),
    h("td", { class: "mono muted wide run-id" }, run.id));
}

/** The history of all programs. */
export class RunsPage {
  /** @param {{ programs: Map<string, any> }} how */
  constructor({ programs }) {
    this.limit = PAGE;
    const load = () => this.load();
    this.program = h("select", { "aria-label": "Program", onchange: load }, h("option", { value: "" }, "All programs"), [...programs.keys()].map((name) => h("option", { value: name }, name)));
    this.status = h("select", { "aria-label": "Status", onchange: load }, h("option", { value: "" }, "Any status"), STATUSES.map((name) => h("option", { value: name }, name)));
    this.text = h("input", { type: "search", class: "search", placeholder: "Find a run  /", "aria-label": "Find a run by its id or program", oninput: () => this.#draw() });
    this.table = h("div", { class: "table", "aria-live": "off" });
    this.more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => { this.limit = Math.min(1000, this.limit * 3); this.load(); } }, "Show more");
    this.element = h("div", { class: "page" },
      h("header", { class: "page-head" }, h("h1", null, "Runs"), h("span", { class: "spring" }), this.program, this.status, this.text, iconButton("Refresh", "again", load)),
      this.table, this.more);
    this.#timer = setInterval(() => document.hidden || !this.#runs.some((run) => run.status === "running" || run.status === "queued") || this.load(), REFRESH_MS);
    this.load();
  }

  #timer;
  /** @type {any[]} */ #runs = [];

  close() {
    clearInterval(this.#timer);
  }

  async load() {
    const filter = { limit: this.limit, ...(this.program.value && { program: this.program.value }), ...(this.status.value && { status: this.status.value }) };
    try {
      this.#runs = (await api.runs(filter)).runs;
      this.#draw();
    } catch (error) {
      fill(this.table, problemBox(error, () => this.load()));
    }
  }

  #draw() {
    const text = this.text.value.trim().toLowerCase();
    const shown = this.#runs.filter((run) => !text || `${run.id} ${run.program} ${run.status}`.toLowerCase().includes(text));
    const focused = document.activeElement instanceof HTMLAnchorElement && this.table.contains(document.activeElement) ? document.activeElement.hash : "";
    fill(this.table, runsTable(shown));
    if (focused) /** @type {HTMLElement | undefined} */ ([...this.table.querySelectorAll("a")].find((link) => link.hash === focused))?.focus();
    this.more.hidden = this.#runs.length < this.limit || this.limit >= 1000;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key !== "/") return false;
    this.text.focus();
    return true;
  }
}
