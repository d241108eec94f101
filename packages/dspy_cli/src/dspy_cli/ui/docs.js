/** The HTTP interface as a page, made from /openapi.json: nothing is fetched from elsewhere. */

import { BASE, url } from "./api.js";
import { copyButton, fill, h, icon } from "./dom.js";
import { problemBox } from "./problem.js";
import { form, initial, given } from "./schema.js";
import { curl } from "./snippets.js";

const main = /** @type {HTMLElement} */ (document.getElementById("docs"));
const VERBS = ["get", "post", "put", "patch", "delete"];

async function start() {
  try {
    const response = await fetch(url("openapi.json"), { credentials: "same-origin" });
    if (!response.ok) throw new Error(`The server answered ${response.status}.`);
    fill(main, page(await response.json()));
    open();
  } catch (error) {
    fill(main, problemBox(error, start));
  }
}

/** @param {any} api an OpenAPI document */
function page(api) {
  const groups = grouped(api);
  return [
    h("header", { class: "page-head" }, h("a", { class: "brand", href: BASE.href }, icon("logo"), h("span", null, "dspy-cli")), h("span", { class: "spring" }), h("a", { href: url("openapi.json") }, "openapi.json")),
    h("h1", null, api.info?.title ?? "API", " ", h("span", { class: "tag" }, api.info?.version ?? "")),
    h("p", { class: "about" }, "Every program answers at its own path: with its outputs at once, or with its events as they happen at /stream. Runs can be watched, resumed and stopped by their id. Errors are problem documents (RFC 9457)."),
    [...groups].map(([name, operations]) => [h("h2", { id: name }, name), operations.map((each) => operation(each, api))]),
    Object.keys(api.components?.schemas ?? {}).length > 0 && [h("h2", null, "Schemas"), Object.entries(api.components.schemas).map(([name, schema]) => schemaBox(name, schema, api))],
  ];
}

/** @typedef {{ verb: string, path: string, about: any }} Operation */

/** Operations by their first tag. @param {any} api */
function grouped(api) {
  /** @type {Map<string, Operation[]>} */ const groups = new Map();
  for (const [path, verbs] of Object.entries(api.paths ?? {})) {
    for (const verb of VERBS.filter((each) => each in verbs)) {
      const about = verbs[verb];
      const name = about.tags?.[0] ?? "other";
      groups.set(name, [...(groups.get(name) ?? []), { verb, path, about }]);
    }
  }
  return groups;
}

/** @param {Operation} operation @param {any} api */
function operation({ verb, path, about }, api) {
  const id = `${verb}${path}`;
  const body = about.requestBody?.content?.["application/json"]?.schema;
  return h("details", { class: "operation", id },
    h("summary", null, h("span", { class: `verb verb-${verb}` }, verb.toUpperCase()), h("code", { class: "route" }, path), h("span", { class: "summary" }, firstLine(about.description ?? about.summary))),
    h("div", { class: "operation-body" },
      about.description?.includes("\n") && h("p", { class: "about" }, about.description),
      parameters(about.parameters ?? [], api),
      body && [h("h3", null, "Body"), schemaView(body, api)],
      h("h3", null, "Call"), code(example(verb, path, body, about, api)),
      h("h3", null, "Answers"), h("div", { class: "schema-row" }, Object.entries(about.responses ?? {}).map(([status, answer]) => h("div", null, h("code", null, status), h("span", { class: "muted mono" }, Object.keys(/** @type {any} */ (answer).content ?? {}).join(", ")), h("span", null, /** @type {any} */ (answer).description ?? ""))))));
}

const firstLine = (/** @type {string | undefined} */ text) => (text ?? "").split("\n")[0];

/** @param {any[]} all @param {any} api */
function parameters(all, api) {
  if (!all.length) return null;
  return [h("h3", null, "Parameters"), h("div", { class: "schema-row" }, all.map((each) => h("div", null, h("code", null, each.name), h("span", { class: "muted" }, `${each.in}, ${typeOf(each.schema ?? {}, api)}`), h("span", null, each.description ?? each.schema?.description ?? ""))))];
}

/** @param {any} schema @param {any} api */
function schemaView(schema, api) {
  const plain = resolved(schema, api);
  const properties = Object.entries(plain.properties ?? {});
  if (!properties.length) return h("code", { class: "muted" }, typeOf(schema, api));
  const required = new Set(plain.required ?? []);
  return h("div", { class: "schema-row" }, properties.map(([name, each]) => h("div", null, h("code", null, name), h("span", { class: "muted mono" }, typeOf(each, api)), h("span", null, required.has(name) ? "" : "optional. ", /** @type {any} */ (each).description ?? ""))));
}

/** @param {string} name @param {any} schema @param {any} api */
function schemaBox(name, schema, api) {
  return h("details", { class: "operation", id: `schema-${name}` }, h("summary", null, h("code", { class: "route" }, name), h("span", { class: "summary" }, firstLine(schema.description))), h("div", { class: "operation-body" }, schemaView(schema, api), code(JSON.stringify(schema, null, 2))));
}

/** @param {any} schema @param {any} api @returns {any} */
function resolved(schema, api) {
  const name = /^#\/components\/schemas\/(.+)$/.exec(schema?.$ref ?? "")?.[1];
  return name ? api.components?.schemas?.[name] ?? {} : schema ?? {};
}

/** @param {any} schema @param {any} api @param {number} depth @returns {string} */
function typeOf(schema, api, depth = 0) {
  if (depth > 4) return "…";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((/** @type {any} */ each) => JSON.stringify(each)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((/** @type {any} */ each) => typeOf(each, api, depth + 1)).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items ?? {}, api, depth + 1)}[]`;
  return [schema.type ?? "any"].flat().join(" | ") + (schema.format ? ` (${schema.format})` : "");
}

/** @param {string} verb @param {string} path @param {any} body @param {any} about @param {any} api */
function example(verb, path, body, about, api) {
  const streams = Object.values(about.responses ?? {}).some((/** @type {any} */ answer) => answer.content?.["text/event-stream"]);
  const full = url(path.slice(1));
  if (body) return curl({ url: full, body: sample(body, api), stream: false, auth: false }).replace("curl ", streams ? "curl -N " : "curl ");
  return `curl ${streams ? "-N " : ""}${verb === "get" ? "" : `-X ${verb.toUpperCase()} `}'${full}'`;
}

/** An example of a body: defaults, and a word where there are none. @param {any} schema @param {any} api */
function sample(schema, api) {
  const plain = form({ ...resolved(schema, api), components: api.components });
  const words = Object.entries(plain.fields ?? {}).filter(([, each]) => each.required);
  return given(Object.fromEntries(words.map(([name, each]) => [name, initial(each) ?? WORDS[each.kind] ?? "…"])));
}

/** @type {Record<string, any>} */
const WORDS = { text: "…", integer: 1, number: 1.5, boolean: true, list: [], object: {}, date: "2026-01-31", image: "https://example.com/picture.png" };

/** @param {string} text */
const code = (text) => h("div", { class: "code" }, h("pre", { tabindex: "0" }, text), copyButton(() => text));

/** Unfold what the address names. */
function open() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
  named?.scrollIntoView();
}

addEventListener("hashchange", open);
start();
