/**
 * Events -> what a run looks like. No DOM, O(1) an event; `apply` is the fold, and a run at any point of its log is
 * the fold of the events up to there.
 */

/**
 * @typedef {object} Event one event of docs/wire-format.md
 * @property {number} sequence
 * @property {string} event_type
 * @property {string} timestamp
 * @property {string} execution_id
 * @property {string | null} [call_id]
 * @property {string | null} [parent_call_id]
 * @property {string | null} [module_name]
 * @property {string | null} [operation]
 * @property {Record<string, any>} data
 * @property {string[]} [tags]
 */

/** @typedef {"running" | "ok" | "error" | "unknown"} Status how a call stands; unknown: the run is over, its end was lost */

/**
 * @typedef {object} Field text that a model writes
 * @property {string} key
 * @property {string} name "" for the text of a call without a signature
 * @property {"field" | "reasoning" | "tools"} lane
 * @property {number | null} candidate
 * @property {string} text
 * @property {boolean} done
 * @property {boolean} raw the text is the wire form of `value`
 * @property {any} value undefined until it is known
 * @property {string} reset why the text so far was void, "" if it never was
 * @property {string} tool the native tool call being written
 * @property {number} version
 */

/**
 * @typedef {object} Call
 * @property {"call"} is
 * @property {string} id
 * @property {Call | null} parent
 * @property {number} depth
 * @property {string} kind
 * @property {string} name
 * @property {string} operation
 * @property {string} module
 * @property {Status} status
 * @property {number} start milliseconds since 1970
 * @property {number | null} end
 * @property {number | null} firstToken
 * @property {Record<string, any>} given data of the start
 * @property {Record<string, any>} result data of the end
 * @property {Problem | null} error
 * @property {(Call | Note)[]} children
 * @property {Map<string, Field>} fields
 * @property {string} status_message
 * @property {Call | null} writer the last model call directly inside
 * @property {Field | null} writing the field that text came for last
 * @property {number} version goes up with each change
 */

/** @typedef {{ is: "note", id: string, parent: Call | null, depth: number, kind: string, name: string, time: number, event: Event, version: number }} Note */
/** @typedef {{ type: string, code: string, message: string, hint: string }} Problem */
/** @typedef {Call | Note} Node */

/**
 * @typedef {object} Run
 * @property {string} id
 * @property {string} program
 * @property {string} status running, ok, error, cancelled, timeout, interrupted
 * @property {number} start @property {number | null} end
 * @property {number} now time of the last event
 * @property {number} count events folded
 * @property {number} sequence of the last one
 * @property {Map<string, Call>} calls
 * @property {Node[]} roots
 * @property {Call | null} live the call that something was last heard of
 * @property {Call | null} root
 * @property {Map<string, Field>} drafts the latest text of each field name
 * @property {any} outputs undefined until the program has returned
 * @property {any} inputs
 * @property {Problem | null} error
 * @property {string} message the last status line
 * @property {Totals} totals
 * @property {number} lost events the log lacks
 * @property {number} structure goes up when a row is added
 * @property {Set<Call>} running
 */

/** @typedef {{ lm: number, tools: number, input: number, output: number, cost: number, unpriced: number, cached: number, errors: number }} Totals */

/** What the tree shows, by the event type without `_start`, `_end` or `_error`. */
const SPANS = new Set([
  "module", "lm", "tool", "adapter_format", "adapter_parse", "evaluate", "compile", "interpreter", "trace", "retriever",
]);

const RETRIEVER = /retriev|embedding|colbert|search_index|vector/i;

/** How a run ended, by the error's code. */
const ENDED = new Set(["cancelled", "timeout", "interrupted"]);

/** @param {string} id @returns {Run} */
export function newRun(id = "") {
  return {
    id, program: "", status: "running", start: 0, end: null, now: 0, count: 0, sequence: -1,
    calls: new Map(), roots: [], live: null, root: null, drafts: new Map(), outputs: undefined, inputs: undefined,
    error: null, message: "", lost: 0, structure: 0, running: new Set(),
    totals: { lm: 0, tools: 0, input: 0, output: 0, cost: 0, unpriced: 0, cached: 0, errors: 0 },
  };
}

/**
 * Fold one event into `run`.
 * @param {Run} run @param {Event} event @returns {Run} the same
 */
export function apply(run, event) {
  run.count += 1;
  run.sequence = event.sequence;
  const time = milliseconds(event.timestamp) || run.now;
  run.now = Math.max(run.now, time);
  if (!run.start) run.start = time;
  const taken = TAKEN[event.event_type];
  if (taken) {
    taken(run, event, time);
    return run;
  }
  const cut = event.event_type.lastIndexOf("_");
  const span = event.event_type.slice(0, cut);
  const moment = SPANS.has(span) ? MOMENTS[event.event_type.slice(cut + 1)] : undefined;
  if (moment) moment(run, event, time, span);
  else note(run, event, time);
  return run;
}

/** @param {Iterable<Event>} events @param {string} [id] */
export function fold(events, id) {
  const run = newRun(id);
  for (const event of events) apply(run, event);
  return run;
}

/** @type {Record<string, any>} */
const TAKEN = {
  __proto__: null, // a program may name an event `constructor`
  execution_start(run, event, time) {
    run.start = time;
    run.id ||= event.execution_id;
    run.program = String(event.data.program ?? event.operation ?? "");
  },
  execution_end: (run, event, time) => finish(run, event, time, "ok"),
  execution_error(run, event, time) {
    run.error = problem(event.data.error);
    finish(run, event, time, ENDED.has(run.error.code) ? run.error.code : "error");
  },
  prediction(run, event, time) {
    if (event.call_id) note(run, event, time); // one that the program made up
    else run.outputs = event.data.outputs;
  },
  token: write,
  reasoning: write,
  stream_reset(run, event) {
    const call = callOf(run, event);
    const field = fieldOf(call, event);
    Object.assign(field, { text: "", done: false, value: undefined, tool: "", reset: String(event.data.reason ?? "again") });
    field.version += 1;
    touch(run, call);
  },
  status(run, event, time) {
    run.message = String(event.data.message ?? "");
    const call = event.call_id && run.calls.get(event.call_id);
    if (call) call.status_message = run.message;
    note(run, event, time);
  },
  gap(run, event, time) {
    run.lost += Number(event.data.count) || 0;
    note(run, event, time);
    if (event.data.ended) close(run, time, "unknown");
  },
};

/** @type {Record<string, any>} */
const MOMENTS = {
  __proto__: null,
  start(run, event, time, span) {
    const call = newCall(run, event, time, span);
    call.given = event.data;
    run.running.add(call);
    if (span === "module" && call.parent === null && run.inputs === undefined) run.inputs = event.data.inputs;
    run.live = call;
  },
  end(run, event, time, span) {
    const call = ended(run, event, time, span, "ok");
    if (span === "lm") count(run, event.data);
    if (span === "tool") run.totals.tools += 1;
    if (span === "module" && call === run.root) run.outputs = event.data.outputs;
  },
  error(run, event, time, span) {
    const call = ended(run, event, time, span, "error");
    call.error = problem(event.data.error);
    run.totals.errors += 1;
    if (span === "lm") count(run, event.data);
    if (span === "tool") run.totals.tools += 1;
  },
};

/** @param {Run} run @param {Event} event @param {number} time @param {string} status */
function finish(run, event, time, status) {
  const { data } = event;
  const totals = run.totals;
  totals.lm = number(data.lm_calls, totals.lm);
  totals.tools = number(data.tool_calls, totals.tools);
  totals.input = number(data.input_tokens, totals.input);
  totals.output = number(data.output_tokens, totals.output);
  totals.cost = number(data.cost_usd, totals.cost);
  totals.unpriced = number(data.unpriced_calls, totals.unpriced);
  totals.cached = number(data.cached_calls, totals.cached);
  run.program ||= String(data.program ?? "");
  close(run, time, status);
}

/** @param {Run} run @param {number} time @param {string} status */
function close(run, time, status) {
  run.status = status;
  run.end = time;
  for (const call of run.running) {
    call.status = "unknown";
    call.end = time;
    call.version += 1;
  }
  run.running.clear();
}

/** @param {Run} run @param {Record<string, any>} data of `lm_end` */
function count(run, data) {
  const totals = run.totals;
  totals.lm += 1;
  totals.input += number(data.input_tokens, 0);
  totals.output += number(data.output_tokens, 0);
  totals.cost += number(data.cost_usd, 0);
  totals.unpriced += data.cost_usd == null ? 1 : 0;
  totals.cached += data.cached ? 1 : 0;
}

/** @param {Run} run @param {Event} event */
function write(run, event, /** @type {number} */ time) {
  const { data } = event;
  const call = callOf(run, event);
  const field = fieldOf(call, event);
  if (call.firstToken === null) call.firstToken = time;
  if ("value" in data) field.value = data.value;
  field.raw ||= data.raw === true;
  field.text += field.lane === "tools" ? toolText(field, data) : String(data.token ?? "");
  field.done ||= data.finish_reason != null;
  field.version += 1;
  if (data.token) call.writing = field;
  if (field.lane === "field" && !data.candidate) run.drafts.set(field.name, field);
  touch(run, call);
}

/** A fragment of a native tool call; the first of each call begins a line with the tool's name. */
function toolText(/** @type {Field} */ field, /** @type {Record<string, any>} */ data) {
  const token = String(data.token ?? "");
  const called = String(data.tool_call_id || data.tool_name || field.tool || "");
  if (!data.tool_name || called === field.tool) return token;
  const line = field.tool ? "\n" : "";
  field.tool = called;
  return `${line}${data.tool_name} ${token}`;
}

/** @param {Run} run @param {Call} call */
function touch(run, call) {
  call.version += 1;
  run.live = call;
}

/** @param {Call} call @param {Event} event @returns {Field} */
function fieldOf(call, event) {
  const { data } = event;
  const thinking = event.event_type === "reasoning" || data.of === "reasoning";
  const lane = thinking ? "reasoning" : data.tool_name !== undefined || data.field === "tool_calls" ? "tools" : "field";
  const name = thinking ? "" : String(data.field ?? "");
  const candidate = data.candidate ?? null;
  const key = `${lane} ${name} ${candidate ?? ""}`;
  let field = call.fields.get(key);
  if (!field) {
    field = { key, name, lane, candidate, text: "", done: false, raw: false, value: undefined, reset: "", tool: "", version: 0 };
    call.fields.set(key, field);
  }
  return field;
}

/** The call an event is about; made if its start was filtered out or lost. @param {Run} run @param {Event} event */
function callOf(run, event) {
  return run.calls.get(event.call_id ?? "") ?? newCall(run, event, milliseconds(event.timestamp) || run.now, "lm");
}

/** @param {Run} run @param {Event} event @param {number} time @param {string} kind @returns {Call} */
function newCall(run, event, time, kind) {
  const id = event.call_id ?? `event-${event.sequence}`;
  const parent = run.calls.get(event.parent_call_id ?? "") ?? null;
  const operation = String(event.operation ?? "");
  /** @type {Call} */
  const call = {
    is: "call", id, parent, depth: parent ? parent.depth + 1 : 0,
    kind: kind === "module" && RETRIEVER.test(operation) ? "retriever" : kind,
    name: nameOf(event, kind, parent), operation, module: String(event.module_name ?? ""),
    status: "running", start: time, end: null, firstToken: null, given: {}, result: {}, error: null, children: [],
    fields: new Map(), status_message: "", writer: null, writing: null, version: 0,
  };
  run.calls.set(id, call);
  (parent ? parent.children : run.roots).push(call);
  if (kind === "lm") {
    if (parent) parent.writer = call;
  } else if (parent === null && run.root === null) run.root = call;
  run.structure += 1;
  return call;
}

/** @param {Event} event @param {string} kind @param {Call | null} parent */
function nameOf(event, kind, parent) {
  const operation = String(event.operation ?? "");
  if (kind !== "module" || !event.module_name) return operation || kind;
  const path = event.module_name;
  const inside = parent?.kind === "module" && path.startsWith(`${parent.module}.`);
  return inside ? path.slice(/** @type {Call} */ (parent).module.length + 1) : path;
}

/** @param {Run} run @param {Event} event @param {number} time @param {string} span @param {Status} status */
function ended(run, event, time, span, status) {
  let call = run.calls.get(event.call_id ?? "");
  if (!call) call = newCall(run, event, time - number(event.data.duration_ms, 0), span);
  call.status = status;
  call.end = time;
  call.result = event.data;
  call.version += 1;
  for (const field of call.fields.values()) field.done = true;
  call.writing = null;
  run.running.delete(call);
  return call;
}

/** @param {Run} run @param {Event} event @param {number} time */
function note(run, event, time) {
  const parent = run.calls.get(event.call_id ?? "") ?? run.calls.get(event.parent_call_id ?? "") ?? null;
  /** @type {Note} */
  const added = {
    is: "note", id: `event-${event.sequence}`, parent, depth: parent ? parent.depth + 1 : 0,
    kind: event.event_type === "status" || event.event_type === "gap" ? event.event_type : "event",
    name: event.event_type, time, event, version: 0,
  };
  (parent ? parent.children : run.roots).push(added);
  run.structure += 1;
}

/** @param {any} error @returns {Problem} */
export function problem(error) {
  const { type = "", code = "", message = "", hint = "" } = typeof error === "object" && error ? error : { message: error ?? "" };
  return { type: String(type ?? ""), code: String(code ?? ""), message: String(message ?? ""), hint: String(hint ?? "") };
}

/** @param {unknown} value @param {number} otherwise */
const number = (value, otherwise) => (typeof value === "number" && Number.isFinite(value) ? value : otherwise);

/**
 * Milliseconds since 1970, to the microsecond the wire has; NaN when it is no time.
 * @param {string} timestamp
 */
export function milliseconds(timestamp) {
  const whole = Date.parse(timestamp);
  const micros = /\.\d{3}(\d{1,3})/.exec(timestamp);
  return micros ? whole + Number(micros[1].padEnd(3, "0")) / 1000 : whole;
}

/** Milliseconds a call has taken. @param {Call} call @param {number} now */
export function took(call, now) {
  if (typeof call.result.duration_ms === "number") return call.result.duration_ms;
  return Math.max(0, (call.end ?? now) - call.start);
}

/** The value of a field as it stands. @param {Field} field */
export const valueOf = (field) => (field.value === undefined ? field.text : field.value);
