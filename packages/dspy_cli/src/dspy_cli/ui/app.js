/** The shell: navigation, routes after the `#`, keys, the theme. */

import * as api from "./api.js";
import { fill, h, icon, iconButton } from "./dom.js";
import { HomePage } from "./home.js";
import { problemBox } from "./problem.js";
import { ProgramPage } from "./program.js";
import { RunView } from "./run.js";
import { RunsPage } from "./runs.js";
import { flipTheme } from "./shade.js";

/** @typedef {{ element: HTMLElement, close(): void, key?(event: KeyboardEvent): boolean }} Page */
/** @typedef {{ list: any[], programs: Map<string, any>, failures: any[], server: any }} Known */

/** @type {Known} */ let known = { list: [], programs: new Map(), failures: [], server: {} };
/** @type {Page | null} */ let page = null;

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const rail = /** @type {HTMLElement} */ (document.getElementById("rail"));
const help = /** @type {HTMLDialogElement} */ (document.getElementById("help"));

/** What the address shows; the first that fits. @type {[RegExp, (parts: string[]) => Page | null, string][]} */
const ROUTES = [
  [/^\/?$/, () => new HomePage(known), "Programs"],
  [/^\/programs\/([^/]+)(?:\/([^/]+))?$/, ([name, run]) => known.programs.has(name) ? new ProgramPage(known.programs.get(name), { run, ...known }) : null, "$1"],
  [/^\/runs$/, () => new RunsPage(known), "Runs"],
  [/^\/runs\/([^/]+)(?:\/([^/]+))?$/, ([id, call]) => new RunView(id, { call, ...known }), "Run $1"],
];

function route() {
  const path = location.hash.slice(1);
  page?.close();
  page = null;
  for (const [pattern, make, title] of ROUTES) {
    const match = pattern.exec(path);
    if (!match) continue;
    const parts = match.slice(1).map((part) => (part === undefined ? "" : decoded(part)));
    page = make(parts);
    document.title = `${title.replace("$1", () => parts[0])} – dspy-cli`;
    break;
  }
  fill(main, page ? page.element : notFound());
  mark();
  document.documentElement.classList.remove("rail-open");
}

const notFound = () => h("div", { class: "blank" }, icon("logo"), h("p", null, "There is nothing here."), h("a", { href: "#/" }, "All programs"));

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Mark where we are in the navigation. */
function mark() {
  const here = location.hash || "#/";
  for (const link of rail.querySelectorAll("a")) {
    const to = link.getAttribute("href") ?? "";
    const current = to === here || (to.length > 2 && here.startsWith(`${to}/`));
    current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
}

function drawRail() {
  const item = (/** @type {string} */ href, /** @type {string} */ name, /** @type {string} */ image, about = {}) => h("a", { class: "rail-link", href, ...about }, icon(image), h("span", null, name));
  fill(rail,
    h("a", { class: "brand", href: "#/", "aria-label": "dspy-cli, home" }, icon("logo"), h("span", null, "dspy-cli")),
    h("nav", { "aria-label": "Main" }, item("#/", "Programs", "grid"), item("#/runs", "Runs", "history"), item("docs", "API", "docs")),
    h("nav", { class: "rail-programs", "aria-label": "Programs" }, known.list.length > 0 && h("h2", null, "Programs"), known.list.map((program) => item(`#/programs/${encodeURIComponent(program.name)}`, program.name, "module"))),
    h("div", { class: "rail-foot" }, iconButton("Light or dark (t)", "theme", flipTheme), iconButton("Keys and help (?)", "help", () => help.showModal()),
      known.server.auth && iconButton("Log out", "out", leave), h("span", { class: "spring" }), h("span", { class: "muted version" }, known.server.version ? `v${known.server.version}` : "")));
}

async function leave() {
  await api.logOut().catch(() => {});
  api.logIn();
}

const KEYS = [
  ["Ctrl Enter", "Run the program"], ["/", "Search"], ["↑ ↓ ← →", "Move in the calls, fold and unfold"], ["Enter", "Details of a call"], ["l", "Jump to live"],
  ["e", "Calls or events"], ["Space", "Play or pause"], ["[ ]", "One event back or on"], ["h", "Programs"], ["r", "Runs"], ["t", "Light or dark"], ["Esc", "Close, clear the search"], ["?", "This help"],
];

function drawHelp() {
  fill(help, h("form", { method: "dialog" }, h("header", { class: "label-line" }, h("h2", null, "Keys"), h("span", { class: "spring" }), h("button", { class: "icon-button", "aria-label": "Close", value: "close" }, icon("close"))),
    h("dl", { class: "keys" }, KEYS.map(([key, what]) => h("div", null, h("dt", null, key.split(" ").map((each) => h("kbd", null, each))), h("dd", null, what))))));
}

/** @type {Record<string, () => void>} */
const SHORTCUTS = {
  "?": () => help.showModal(),
  h: () => { location.hash = "#/"; },
  r: () => { location.hash = "#/runs"; },
  t: flipTheme,
};

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (page instanceof ProgramPage) page.run();
    return;
  }
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (target.matches("input:not([type=range]), textarea, select, [contenteditable]")) {
    if (event.key === "Escape") target.blur();
    if (event.key !== "Escape" || !target.matches("[type=search]")) return;
  }
  if (event.key === " " && target.matches("button, summary, a, input")) return;
  const menu = document.querySelector("details.menu[open]");
  if (event.key === "Escape" && menu) menu.removeAttribute("open");
  else if (page?.key?.(event)) event.preventDefault();
  else if (Object.hasOwn(SHORTCUTS, event.key)) {
    event.preventDefault();
    SHORTCUTS[event.key]();
  }
}

async function start() {
  drawHelp();
  drawRail();
  try {
    const told = await api.programs();
    known = { list: told.programs, programs: new Map(told.programs.map((/** @type {any} */ program) => [program.name, program])), failures: told.failures ?? [], server: told.server ?? {} };
  } catch (error) {
    return fill(main, h("div", { class: "page" }, problemBox(error, start)));
  }
  drawRail();
  route();
}

addEventListener("hashchange", route);
addEventListener("keydown", onKey);
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(/** @type {Node} */ (event.target))) menu.removeAttribute("open");
});
document.getElementById("rail-toggle")?.addEventListener("click", () => document.documentElement.classList.toggle("rail-open"));
document.getElementById("rail-shade")?.addEventListener("click", () => document.documentElement.classList.remove("rail-open"));
start();
