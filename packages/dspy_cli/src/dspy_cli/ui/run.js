/** One run, live or long over: what it gives, its calls and their time, its events, a scrubber over all of it. */

import * as api from "./api.js";
import { announce, calm, copy, fill, h, icon, say } from "./dom.js";
import { Detail } from "./detail.js";
import { Feed } from "./feed.js";
import { clock, cost, count, duration } from "./format.js";
import { GROUPS, remembered } from "./outline.js";
import { OutputPanel, doing } from "./output.js";
import { Player } from "./player.js";
import { errorBox, problemBox } from "./problem.js";
import { RawLog } from "./rawlog.js";
import * as snippets from "./snippets.js";
import { Tree } from "./tree.js";
/** @import { Call, Node, Run } from "./fold.js" */

const CONNECTIONS = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", offline: "Offline", paused: "Paused", done: "Done", failed: "Failed" };
const GROUP_NAMES = { module: "Modules", lm: "Models", tool: "Tools", adapter: "Adapters", trace: "Traces", event: "Events" };
/** Events still to be folded above which the page first catches up, and shows single calls after. */
const HURRIED = 500;
/** Calls that pass in a moment are not worth following. */
const FOLLOWED = new Set(["lm", "tool", "interpreter", "retriever"]);

export class RunView {
  /**
   * @param {string} id
   * @param {object} how
   * @param {string} [how.call] the call to show
   * @param {boolean} [how.embedded] beside a form
   * @param {any} how.server what `GET /programs` tells of it
   * @param {Map<string, any>} how.programs by name
   * @param {(status: string) => void} [how.onStatus]
   */
  constructor(id, { call = "", embedded = false, server, programs, onStatus = () => {} }) {
    this.id = id;
    this.server = server;
    this.programs = programs;
    this.embedded = embedded;
    this.#wanted = call;
    this.#following = !call;
    this.#onStatus = onStatus;
    this.feed = new Feed(id, {
      open: (after, signal) => api.events(id, after, signal),
      onRefused: (error) => this.#refused(error),
      onFrame: () => this.draw(),
    });
    this.tree = new Tree({
      onSelect: (node) => this.#choose(node),
      onReader: () => this.#look(),
      onOpen: () => this.element.classList.add("detail-open"),
    });
    this.detail = new Detail({
      linkTo: (node) => `#/runs/${encodeURIComponent(id)}/${encodeURIComponent(node.id)}`,
      showEvents: (node) => this.#eventsOf(node),
      onClose: () => this.element.classList.remove("detail-open"),
      onReader: () => this.#look(),
    });
    this.raw = new RawLog({ onReader: (atEnd) => atEnd || this.#look() });
    this.player = new Player(this.feed, () => this.#sought());
    this.outputs = new OutputPanel(null);
    this.#build();
    this.feed.start();
    this.#about();
    this.#clock = setInterval(() => this.feed.run.status === "running" && this.feed.schedule(), calm() ? 1000 : 250);
  }

  #wanted;
  #onStatus;
  #clock;
  #status = "";
  #tab = "calls";
  #following = true;
  /** @type {Node | null} */ #selected = null;
  #generation = 0;
  /** @type {Run | null} whose end was shown */ #settledOn = null;
  #finding = 0;
  /** @type {any} what `GET /runs/{id}` tells */ #told = null;

  close() {
    clearInterval(this.#clock);
    this.feed.close();
    this.player.close();
    this.tree.close();
    this.raw.close();
  }

  // --- building ---

  #build() {
    this.badge = h("span", { class: "badge", role: "status" }, h("span", { class: "dot" }), h("span", { class: "badge-text" }));
    this.state = h("span", { class: "status" });
    this.title = h("h1", { class: "run-title" });
    this.when = h("span", { class: "muted when" });
    this.cancelButton = h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.cancel() }, icon("stop"), "Cancel");
    this.again = h("a", { class: "button", hidden: true }, icon("again"), "Run again");
    this.totals = h("dl", { class: "totals" });
    this.problems = h("div", { class: "problems" });
    this.pill = h("button", { type: "button", class: "pill", hidden: true, onclick: () => this.live() }, icon("down"), "Jump to live");
    this.element = h("article", { class: `run${this.embedded ? " embedded" : ""}`, "aria-label": "Run" },
      h("header", { class: "run-head" },
        h("div", { class: "run-line" }, this.title, this.state, this.badge, this.when, h("span", { class: "spring" }), this.cancelButton, this.again, this.#menu(),
          this.embedded && h("a", { class: "icon-button", href: `#/runs/${encodeURIComponent(this.id)}`, title: "Open the run on its own", "aria-label": "Open the run on its own" }, icon("expand"))),
        this.totals),
      this.problems, this.outputs.element, this.#bar(),
      h("div", { class: "panes" }, h("div", { class: "pane calls" }, this.tree.element, this.detail.element), h("div", { class: "pane events", hidden: true }, this.raw.element), this.pill),
      this.player.element);
  }

  #bar() {
    this.tabs = Object.entries({ calls: "Calls", events: "Events" }).map(([name, label]) =>
      h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(name === "calls"), onclick: () => this.show(name) }, label, h("span", { class: "tab-count num" })));
    this.search = h("input", { type: "search", class: "search", placeholder: "Search  /", "aria-label": "Search in this run", oninput: () => this.#filter() });
    this.found = h("span", { class: "muted found num" });
    this.chips = Object.keys(GROUPS).map((group) => {
      const name = GROUP_NAMES[/** @type {keyof typeof GROUP_NAMES} */ (group)];
      return h("button", { type: "button", class: `chip chip-${group}`, data: { group }, "aria-pressed": "true", title: `Show or hide ${name.toLowerCase()}`, onclick: (/** @type {any} */ event) => this.#chip(event.currentTarget) }, name);
    });
    this.only = h("button", { type: "button", class: "chip only", hidden: true, title: "Show the events of all calls", onclick: () => this.#eventsOf(null) });
    return h("div", { class: "run-bar" }, h("div", { class: "tabs", role: "tablist" }, this.tabs), this.only, h("div", { class: "chips", role: "group", "aria-label": "Kinds to show" }, this.chips), h("span", { class: "spring" }), this.found, this.search);
  }

  #menu() {
    const item = (/** @type {string} */ label, /** @type {() => string} */ text) => h("button", { type: "button", role: "menuitem", onclick: async () => {
      menu.open = false;
      announce((await copy(text())) ? `Copied: ${label}` : "Copying failed");
    } }, label);
    const call = (/** @type {boolean} */ stream) => ({ url: api.url(encodeURIComponent(this.#told?.program || this.feed.run.program)), body: this.inputs ?? {}, stream, auth: this.server.auth });
    const menu = h("details", { class: "menu" }, h("summary", { class: "button", "aria-label": "Copy this run" }, icon("copy"), h("span", null, "Copy")),
      h("div", { class: "menu-items", role: "menu" },
        item("as curl", () => snippets.curl(call(false))), item("as curl, streaming", () => snippets.curl(call(true))),
        item("as Python, httpx", () => snippets.python(call(false))), item("as Python, httpx, streaming", () => snippets.python(call(true))), item("as Python, urllib", () => snippets.urllib(call(false))),
        item("link", () => location.href.replace(/#.*/, `#/runs/${this.id}`)), item("id", () => this.id),
        item("outputs", () => JSON.stringify(this.feed.run.outputs ?? this.#told?.outputs ?? null, null, 2)), item("all events, JSON lines", () => this.feed.events.map((event) => JSON.stringify(event)).join("\n"))));
    return menu;
  }

  get inputs() {
    return this.#told?.inputs ?? this.feed.run.inputs;
  }

  async #about() {
    try {
      this.#told = await api.run(this.id);
      this.#program(this.#told.program);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 404) fill(this.problems, problemBox(error));
    }
    this.feed.schedule();
  }

  /** @param {string} name */
  #program(name) {
    if (!name || this.title.textContent === name) return;
    say(this.title, name);
    const known = this.programs.get(name);
    this.outputs.program = known ?? null;
    this.again.hidden = !known || this.embedded;
    this.again.href = `#/programs/${encodeURIComponent(name)}/${encodeURIComponent(this.id)}`;
  }

  /** @param {import("./sse.js").Refused} error */
  async #refused(error) {
    const problem = await api.problemOf(error.response);
    fill(this.problems, problemBox(problem));
    this.element.classList.add("is-refused");
    this.#onStatus("error");
  }

  // --- what the reader does ---

  /** @param {string} tab */
  show(tab) {
    this.#tab = tab;
    for (const button of this.tabs ?? []) button.setAttribute("aria-selected", String(button.id === `tab-${tab}`));
    for (const pane of this.element.querySelectorAll(".pane")) /** @type {HTMLElement} */ (pane).hidden = !pane.classList.contains(tab);
    this.feed.schedule();
  }

  async cancel() {
    if (this.cancelButton) this.cancelButton.disabled = true;
    try {
      await api.cancel(this.id);
      announce("Cancelling");
    } catch (error) {
      fill(this.problems, problemBox(error));
    }
  }

  /** The reader looks at something: do not move it away. */
  #look() {
    if (this.feed.run.status !== "running" && this.feed.following) return;
    this.#following = false;
    this.raw.list.following = false;
    this.feed.schedule();
  }

  /** Follow the run again. */
  live() {
    this.#following = true;
    this.raw.list.following = true;
    this.player.pause();
    this.feed.seek(Infinity);
  }

  #sought() {
    if (!this.feed.following) this.#following = this.player.playing;
  }

  /** @param {Node} node */
  #choose(node) {
    this.#selected = node;
    this.#look();
    this.tree.select(node.id);
    this.feed.schedule();
  }

  /** @param {HTMLElement} chip */
  #chip(chip) {
    const shown = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", String(shown));
    const group = String(chip.dataset.group);
    for (const hidden of [this.tree.view.hidden, this.raw.filter.hidden]) shown ? hidden.delete(group) : hidden.add(group);
    this.#filtered();
  }

  #filter() {
    clearTimeout(this.#finding);
    this.#finding = window.setTimeout(() => {
      const text = this.search?.value.trim().toLowerCase() ?? "";
      this.tree.view.match = text ? remembered(text) : null;
      this.raw.filter.text = text;
      this.#filtered();
    }, 120);
  }

  #filtered() {
    this.tree.refresh();
    this.raw.refresh();
    this.feed.schedule();
  }

  /** @param {Node | null} node whose events to show; all if null */
  #eventsOf(node) {
    this.raw.filter.call = node === null ? "" : node.is === "call" ? node.id : node.event.call_id ?? "";
    if (this.only) {
      this.only.hidden = !this.raw.filter.call;
      fill(this.only, node?.name ?? "", icon("close"));
    }
    this.raw.refresh();
    this.show("events");
  }

  /** A key that is not for an input. @param {KeyboardEvent} event @returns {boolean} */
  key(event) {
    const act = { "/": () => this.search?.focus(), " ": () => this.player.toggle(), l: () => this.live(), e: () => this.show(this.#tab === "calls" ? "events" : "calls"),
      "[": () => this.player.seek(this.feed.run.count - 1), "]": () => this.player.seek(this.feed.run.count + 1), Escape: () => this.#escape() }[event.key];
    if (!act) return false;
    act();
    return true;
  }

  #escape() {
    this.element.classList.remove("detail-open");
    if (this.search?.value) {
      this.search.value = "";
      this.#filter();
    }
  }

  // --- drawing ---

  /** The time of the run now: that of its last event, and what has passed since while it runs. */
  get #now() {
    const { run, following, heard } = this.feed;
    if (run.status !== "running" || !following || !run.now || this.feed.waiting) return run.now;
    return run.now + Math.min(performance.now() - heard, 120_000);
  }

  draw() {
    const { feed } = this;
    const { run } = feed;
    if (feed.generation !== this.#generation) this.#refold();
    const now = this.#now;
    this.#program(this.#told?.program || run.program);
    this.#head(run, now);
    this.outputs.draw(run);
    const hurried = feed.behind > HURRIED;
    if (!hurried) this.#follow(run);
    if (this.#tab === "calls") {
      if (this.tree.draw(run, now, hurried)) feed.schedule();
      if (!hurried) this.#drawCall(run);
    } else {
      this.raw.list.following = this.#following && run.status === "running";
      this.raw.draw(feed.events, run.count);
      if (!this.raw.settled) feed.schedule();
    }
    this.player.draw();
    this.#counts(run);
    if (this.pill) this.pill.hidden = this.#following || (feed.following && run.status !== "running") || (!feed.following && this.#ended());
  }

  /** @param {Run} run */
  #drawCall(run) {
    const following = this.#following && run.status === "running";
    if (following) this.tree.reveal();
    this.detail.draw(this.#selected, run, following);
  }

  #ended() {
    return this.feed.connection === "done";
  }

  /** After a step back the calls are other objects: find the selected one again. */
  #refold() {
    this.#generation = this.feed.generation;
    const id = this.#selected?.id;
    this.#selected = null;
    this.#wanted = id ?? this.#wanted;
  }

  /** @param {Run} run */
  #follow(run) {
    const { run: { calls } } = this.feed;
    if (this.#wanted) {
      const found = calls.get(this.#wanted);
      if (!found) return;
      this.#wanted = "";
      if (!this.#selected && run.status !== "running") this.element.classList.toggle("detail-open", location.hash.endsWith(encodeURIComponent(found.id)));
      return this.#select(found);
    }
    if (run.status !== "running") {
      const failed = this.#following && run.status === "error" && this.#settledOn !== run;
      if ((!this.#selected || failed) && this.feed.settled) this.#select(interesting(run));
      if (this.feed.settled) this.#settledOn = run;
      return;
    }
    if (!this.#following) return;
    const busy = this.#selected?.is === "call" && this.#selected.status === "running" && FOLLOWED.has(this.#selected.kind);
    const next = busy ? this.#selected : run.live && FOLLOWED.has(run.live.kind) ? run.live : this.#selected ?? run.live;
    if (next !== this.#selected) this.#select(next);
  }

  /** @param {Node | null} node */
  #select(node) {
    if (!node) return;
    this.#selected = node;
    this.tree.unfold(node);
    this.tree.draw(this.feed.run, this.#now);
    this.tree.select(node.id);
  }

  /** @param {Run} run @param {number} now */
  #head(run, now) {
    const told = this.#told;
    const over = this.feed.connection === "done" && this.feed.following && run.status === "running" && told && told.status !== "running" && told.status !== "queued";
    const status = over ? told.status : run.count === 0 && told ? told.status : run.status;
    if (status !== this.#status) this.#changed(status, run);
    const { connection, resumed } = this.feed;
    const replaying = !this.feed.following;
    const shown = replaying ? "Replay" : CONNECTIONS[connection];
    if (this.badge) {
      this.badge.className = `badge badge-${replaying ? "replay" : connection}`;
      this.badge.title = resumed ? `The connection was made again ${resumed === 1 ? "once" : `${resumed} times`}; nothing is missing.` : "Connection to the server";
      say(/** @type {Node & any} */ (this.badge.lastChild), shown);
    }
    if (this.when) say(this.when, run.start ? clock(run.start) : "");
    if (this.cancelButton) this.cancelButton.hidden = !["running", "queued"].includes(status) || connection === "done";
    this.#sums(run, now);
  }

  /** @param {string} status @param {Run} run */
  #changed(status, run) {
    this.#status = status;
    if (this.state) {
      this.state.className = `status status-${status}`;
      say(this.state, status);
    }
    const error = run.error ?? (run.status === "running" ? null : this.#told?.error);
    fill(/** @type {Element} */ (this.problems), error && errorBox(error), ["orphaned", "interrupted"].includes(status) && !error && errorBox({ type: status, message: "The server stopped before this run had ended.", hint: "Run it again." }));
    this.#onStatus(status);
    if (this.feed.settled || status === "running") announce(status === "running" ? "Running" : `Run ${status}, ${duration(run.now - run.start)}`);
    if (status !== "running" && status !== "queued" && this.#told?.status === "running") this.#about();
  }

  /** @param {Run} run @param {number} now */
  #sums(run, now) {
    const { totals } = run;
    const price = totals.unpriced >= totals.lm ? "–" : `${cost(totals.cost)}${totals.unpriced ? "+" : ""}`;
    const sums = {
      Time: duration(Math.max(0, (run.end ?? now) - run.start)), "Model calls": `${totals.lm}${totals.cached ? ` (${totals.cached} cached)` : ""}`, Tools: String(totals.tools),
      "Tokens in": count(totals.input), "Tokens out": count(totals.output), Cost: price, ...(run.lost ? { "Events lost": count(run.lost) } : {}),
    };
    const list = /** @type {HTMLElement} */ (this.totals);
    const entries = Object.entries(sums);
    if (list.childElementCount !== entries.length) fill(list, entries.map(([name]) => h("div", null, h("dt", null, name), h("dd", { class: "num" }))));
    entries.forEach(([, value], index) => say(/** @type {Element} */ (list.children[index].lastChild), value));
    if (run.status === "running" && this.feed.following) this.#tell(run);
  }

  #told_at = 0;

  /** Say now and then what is going on. @param {Run} run */
  #tell(run) {
    if (Date.now() - this.#told_at < 6000) return;
    this.#told_at = Date.now();
    announce(`${doing(run)} ${run.totals.lm} model calls done.`, 4000);
  }

  /** @param {Run} run */
  #counts(run) {
    const [calls, events] = /** @type {HTMLElement[]} */ (this.tabs).map((tab) => /** @type {Element} */ (tab.lastChild));
    say(calls, count(run.calls.size));
    say(events, count(run.count));
    const searching = this.tree.view.match || this.raw.filter.text || this.raw.filter.call;
    const found = this.#tab === "calls" ? this.tree.rows.length : this.raw.matches;
    if (this.found) say(this.found, searching ? `${count(found)} found` : "");
  }
}

/** What to show first of a run that is over: the first call that failed deep inside, or the first model call. @param {Run} run */
function interesting(run) {
  /** @type {Call | null} */ let first = null;
  /** @type {Call | null} */ let failed = null;
  for (const call of run.calls.values()) {
    if (call.kind === "lm") first ??= call;
    if (call.status === "error" && (!failed || call.depth > failed.depth)) failed = call;
  }
  return failed ?? first ?? run.root ?? run.roots[0] ?? null;
}

