/** Everything about one call or event: prompts, what was written, arguments, results, errors. */

import { asText, copyButton, fill, grow, h, icon, iconButton, onScrollUp, say } from "./dom.js";
import { took, valueOf } from "./fold.js";
import { brief, clock, cost, count, duration } from "./format.js";
import { errorBox } from "./problem.js";
import { labelled, textView, valueView } from "./values.js";
/** @import { Call, Field, Node, Note, Run } from "./fold.js" */

export const KIND_NAMES = {
  module: "Module", lm: "Model call", tool: "Tool", adapter_format: "Prompt format", adapter_parse: "Parse", evaluate: "Evaluate",
  compile: "Compile", interpreter: "Interpreter", trace: "Trace", retriever: "Retriever", event: "Event", status: "Status", gap: "Gap",
};

/** Which icon a kind has in icons.svg. @param {string} kind */
export const iconOf = (kind) => (kind.startsWith("adapter") ? "adapter" : kind in KIND_NAMES ? kind : "event");

export class Detail {
  /**
   * @param {object} how
   * @param {(node: Node) => string} how.linkTo
   * @param {(node: Node) => void} how.showEvents
   * @param {() => void} how.onClose
   * @param {() => void} how.onReader told when the reader scrolls up
   */
  constructor(how) {
    this.#how = how;
    this.body = h("div", { class: "detail-body", tabindex: "0", role: "region", "aria-label": "Details of the call" });
    this.element = h("aside", { class: "detail", "aria-label": "Call" }, this.body);
    onScrollUp(this.body, () => this.#node?.is === "call" && this.#node.status === "running" && how.onReader());
    fill(this.body, h("p", { class: "empty" }, "Choose a call to see what went in and what came out."));
  }

  #how;
  #key = "";
  /** @type {Node | null} */ #node = null;
  /** @type {Map<string, boolean>} what the reader has opened or closed, kept from call to call */ #open = new Map();
  /** @type {Map<string, { body: HTMLElement, state: HTMLElement }>} */ #live = new Map();
  #time = h("span");

  /** @param {Node | null} node @param {Run} run @param {boolean} following */
  draw(node, run, following) {
    if (!node) return;
    const key = shapeOf(node);
    if (key !== this.#key) this.#rebuild(node, run);
    this.#key = key;
    if (node.is !== "call") return;
    say(this.#time, duration(took(node, run.now)));
    for (const field of node.fields.values()) this.#grow(field, !field.done && node.writing === field);
    if (node.kind === "module" && node.writer) for (const field of node.writer.fields.values()) this.#grow(field, !field.done && node.writer.writing === field);
    if (following && node.status === "running") this.#followText();
  }

  /** Keep what is being written in sight. */
  #followText() {
    const end = this.body.querySelector(".typing")?.getBoundingClientRect().bottom ?? 0;
    const below = end - this.body.getBoundingClientRect().bottom + 24;
    if (below > 0) this.body.scrollTop += below;
  }

  /** @param {Field} field @param {boolean} writing */
  #grow(field, writing) {
    const shown = this.#live.get(field.key);
    if (!shown) return;
    grow(shown.body, field.text);
    say(shown.state, field.done ? "" : field.reset && !field.text ? `void: ${field.reset}` : writing ? "writing" : "");
    shown.body.classList.toggle("typing", writing);
  }

  /** @param {Node} node @param {Run} run */
  #rebuild(node, run) {
    const same = this.#node?.id === node.id;
    const top = this.body.scrollTop;
    this.#node = node;
    this.#live.clear();
    fill(this.body, this.#head(node), node.is === "note" ? this.#note(node) : this.#call(node, run));
    this.body.scrollTop = same ? top : 0;
  }

  /** @param {Node} node */
  #head(node) {
    const path = [];
    for (let each = node.parent; each; each = each.parent) path.unshift(each.name);
    return h("header", { class: "detail-head" },
      h("div", { class: "detail-title" },
        iconButton("Back to the calls", "back", this.#how.onClose, { class: "icon-button back" }),
        icon(iconOf(node.kind), node.kind), h("h2", null, node.name),
        h("span", { class: "tag" }, KIND_NAMES[/** @type {keyof typeof KIND_NAMES} */ (node.kind)] ?? node.kind),
        h("span", { class: "spring" }),
        h("a", { class: "icon-button", href: this.#how.linkTo(node), title: "Link to this call", "aria-label": "Link to this call" }, icon("link")),
        copyButton(() => asText(plain(node)), "Copy as JSON"),
        iconButton("Its events", "events", () => this.#how.showEvents(node))),
      path.length > 0 && h("p", { class: "path", title: "Inside of" }, path.join(" › ")));
  }

  /** @param {Note} note */
  #note(note) {
    const { event } = note;
    const own = Object.keys(event.data).length ? valueView(event.data) : h("p", { class: "muted" }, "No data.");
    return [
      facts([["At", clock(note.time)], ["Sequence", event.sequence], ["Operation", event.operation]]),
      event.event_type === "status" ? h("p", { class: "prose" }, String(event.data.message ?? "")) : this.#section("data", "Data", own),
    ];
  }

  /** @param {Call} call @param {Run} run */
  #call(call, run) {
    const shown = BODIES[/** @type {keyof typeof BODIES} */ (call.kind)] ?? plainBody;
    return [
      h("div", { class: "facts-line" }, statusTag(call), this.#time, h("span", { class: "muted" }, `at ${duration(call.start - run.start)}`),
        call.operation && call.operation !== call.name && h("span", { class: "muted mono" }, call.operation)),
      call.error && errorBox(call.error),
      shown(call, this),
    ];
  }

  /**
   * A part that unfolds; what the reader does with it holds for the next call too.
   * @param {string} key @param {string} title @param {...import("./dom.js").Child} children
   */
  #section(key, title, ...children) {
    return this.fold(key, title, true, "", ...children);
  }

  /** @param {string} key @param {string} title @param {boolean} open @param {string} about @param {...import("./dom.js").Child} children */
  fold(key, title, open, about, ...children) {
    const details = h("details", { class: "section", data: { key }, open: this.#open.get(key) ?? open },
      h("summary", null, h("span", { class: "section-title" }, title), about && h("span", { class: "section-about" }, about)),
      h("div", { class: "section-body" }, ...children));
    details.addEventListener("toggle", () => this.#open.set(key, details.open));
    return details;
  }

  /** A field that may still be written. @param {Field} field @param {boolean} named */
  field(field, named = true) {
    const label = field.lane === "reasoning" ? "Thinking" : field.lane === "tools" ? "Tool calls" : field.name || "Text";
    const name = field.candidate === null ? label : `${label} [${field.candidate}]`;
    const state = h("span", { class: "field-state" });
    const settled = field.done && field.raw && field.value !== undefined && typeof field.value !== "string";
    const body = settled ? valueView(field.value) : h("div", { class: `prose lane-${field.lane}` });
    if (!settled) this.#live.set(field.key, { body, state });
    return h("div", { class: "labelled", data: { field: field.name } },
      (named || field.reset) && h("div", { class: "label-line" }, h("span", { class: "label" }, name), state,
        field.reset && h("span", { class: "tag warn", title: "What was written before is void" }, `again after ${field.reset}`),
        copyButton(() => asText(valueOf(field)), `Copy ${name}`)),
      body);
  }
}

/** Changes when more than text has. @param {Node} node */
function shapeOf(node) {
  if (node.is === "note") return node.id;
  let shape = `${node.id} ${node.status}`;
  for (const field of node.fields.values()) shape += ` ${field.key}${field.raw && field.done ? 1 : 0}${field.reset}`;
  return node.kind === "module" && node.writer ? `${shape} ${shapeOf(node.writer)}` : shape;
}

/** @param {Node} node */
const plain = (node) =>
  node.is === "note"
    ? node.event
    : { id: node.id, kind: node.kind, name: node.name, operation: node.operation, status: node.status, given: node.given, result: node.result, error: node.error };

/** @param {Call} call */
const statusTag = (call) => h("span", { class: `status status-${call.status}` }, call.status);

/** @param {[string, any][]} pairs */
function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== "–");
  return known.length > 0 && h("dl", { class: "facts" }, known.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, String(value)))));
}

const BODIES = { lm: lmBody, module: moduleBody, tool: toolBody, adapter_format: adapterBody, adapter_parse: adapterBody };

/** @param {Call} call @param {Detail} detail */
function lmBody(call, detail) {
  const { given, result } = call;
  const fields = [...call.fields.values()];
  const thinking = fields.filter((field) => field.lane === "reasoning");
  const written = fields.filter((field) => field.lane !== "reasoning");
  const messages = Array.isArray(given.messages) ? given.messages : given.prompt ? [{ role: "user", content: given.prompt }] : [];
  const outputs = result.outputs;
  const parameters = Object.fromEntries(Object.entries(given.parameters ?? {}).filter(([, value]) => value !== null));
  return [
    facts([
      ["Model", result.response_model ?? given.model], ["Input", tokens(result.input_tokens)], ["Output", tokens(result.output_tokens)],
      ["Thinking", tokens(result.reasoning_tokens)], ["From cache", tokens(result.cached_tokens)],
      ["Cost", result.cost_usd == null ? null : `${cost(result.cost_usd)} ${result.cost_source === "estimated" ? "estimated" : ""}`],
      ["First token", result.time_to_first_token_ms == null ? null : duration(result.time_to_first_token_ms)],
      ["Speed", result.tokens_per_second == null ? null : `${result.tokens_per_second} tok/s`],
      ["Retries", result.retries || null], ["Finish", result.finish_reason], ["Cached", result.cached ? "yes" : null],
    ]),
    thinking.length > 0 && detail.fold("thinking", "Thinking", true, "", thinking.map((field) => detail.field(field, thinking.length > 1))),
    written.length > 0 && detail.fold("written", "Written", true, `${written.length} field${written.length === 1 ? "" : "s"}`, written.map((field) => detail.field(field))),
    messages.length > 0 && detail.fold("prompt", "Prompt", true, `${messages.length} message${messages.length === 1 ? "" : "s"}`, messages.map((each, index) => message(each, index, detail))),
    outputs !== undefined && detail.fold("response", "Response", written.length === 0, "as the model wrote it", responses(outputs)),
    hasKeys(parameters) && detail.fold("parameters", "Parameters", false, brief(parameters, 60), valueView(parameters)),
  ];
}

/** @param {number | null | undefined} number */
const tokens = (number) => (number == null ? null : `${count(number)} tokens`);

/** @param {any} message @param {number} index @param {Detail} detail */
function message(message, index, detail) {
  const { role = "message", content, ...rest } = Object(message);
  const parts = Array.isArray(content) ? content : [content];
  const text = parts.map((part) => (typeof part === "string" ? part : part?.text ?? "")).join(" ");
  const extra = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null && value !== undefined));
  const shown = detail.fold(`message ${index} ${role}`, String(role), false, brief(text, 110),
    parts.map(partView), hasKeys(extra) && valueView(extra));
  shown.classList.add("message", `role-${["system", "user", "assistant", "tool"].includes(role) ? role : "other"}`);
  shown.querySelector("summary")?.append(h("span", { class: "spring" }), copyButton(() => asText(text || content), "Copy message"));
  return shown;
}

/** @param {any} part of a message's content */
function partView(part) {
  if (typeof part === "string" || part == null) return textView(part ?? "");
  if (typeof part.text === "string") return textView(part.text);
  const image = part.image_url?.url ?? part.image_url;
  return typeof image === "string" ? textView(image) : valueView(part);
}

/** @param {any} outputs of a model call: texts, or objects with more beside the text */
function responses(outputs) {
  const all = Array.isArray(outputs) ? outputs : [outputs];
  return all.map((output, index) => labelled(all.length > 1 ? `Candidate ${index}` : "Text", typeof output === "object" && output && Object.keys(output).length === 1 && "text" in output ? output.text : output));
}

/** @param {Call} call @param {Detail} detail */
function moduleBody(call, detail) {
  const writing = call.status === "running" && call.writer ? [...call.writer.fields.values()].filter((field) => field.lane === "field") : [];
  return [
    hasKeys(call.given.inputs) && detail.fold("inputs", "Inputs", true, "", each(call.given.inputs)),
    writing.length > 0 && detail.fold("outputs", "Outputs", true, "being written", writing.map((field) => detail.field(field))),
    call.result.outputs !== undefined && detail.fold("outputs", "Outputs", true, "", each(call.result.outputs)),
  ];
}

/** @param {Call} call @param {Detail} detail */
function toolBody(call, detail) {
  return [
    call.given.description && h("p", { class: "about" }, String(call.given.description)),
    detail.fold("arguments", "Arguments", true, "", hasKeys(call.given.arguments) ? each(call.given.arguments) : h("p", { class: "muted" }, "None.")),
    "result" in call.result && detail.fold("result", "Result", true, "", labelled("Result", call.result.result)),
    call.given.class && h("p", { class: "path mono" }, String(call.given.class)),
  ];
}

/** @param {Call} call @param {Detail} detail */
function adapterBody(call, detail) {
  const { outputs } = call.result;
  const prompt = call.kind === "adapter_format" && Array.isArray(outputs) && outputs.every((each) => each?.role);
  return [
    hasKeys(call.given.inputs) && detail.fold("adapter inputs", "Given", true, "", each(call.given.inputs)),
    outputs !== undefined && detail.fold("adapter outputs", prompt ? "Messages" : "Made", true, "", prompt ? outputs.map((part, index) => message(part, index, detail)) : each(outputs)),
  ];
}

/** @param {Call} call @param {Detail} detail */
function plainBody(call, detail) {
  const { inputs, ...given } = call.given;
  const { outputs, duration_ms: _, error: __, ...result } = call.result;
  return [
    inputs !== undefined && detail.fold("inputs", "Inputs", true, "", each(inputs)),
    hasKeys(given) && detail.fold("given", "Data", true, "", each(given)),
    outputs !== undefined && detail.fold("outputs", "Outputs", true, "", each(outputs)),
    hasKeys(result) && detail.fold("result data", "Result", true, "", each(result)),
  ];
}

/** @param {any} values */
const each = (values) =>
  typeof values === "object" && values !== null && !Array.isArray(values)
    ? Object.entries(values).map(([name, value]) => labelled(name, value))
    : labelled("Value", values);

const hasKeys = (/** @type {any} */ value) => typeof value === "object" && value !== null && Object.keys(value).length > 0;
