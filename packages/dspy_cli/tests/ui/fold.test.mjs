// Events -> state, on a log that a program really wrote (in the file EVENTS names) and on single cases.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { apply, fold, newRun, took, valueOf } from "../../src/dspy_cli/ui/fold.js";
import { remembered, rows } from "../../src/dspy_cli/ui/outline.js";

const LOG = readFileSync(process.env.EVENTS, "utf8").trim().split("\n").map((line) => JSON.parse(line));
const BASE = { execution_id: "x", timestamp: "2026-01-01T00:00:00.000000Z", parent_call_id: null, module_name: null, operation: "m" };
const events = (...given) => given.map(([event_type, call_id, data = {}, more = {}], sequence) => ({ ...BASE, sequence, event_type, call_id, data, ...more }));
const view = (more = {}) => ({ hidden: new Set(), closed: new Set(), match: null, ...more });
const fields = (call) => Object.fromEntries([...call.fields.values()].filter(({ lane }) => lane === "field").map((field) => [field.name, valueOf(field)]));

test("the text of a model call's fields is what the program parsed", () => {
  const run = fold(LOG);
  const predictors = [...run.calls.values()].filter((call) => call.kind === "module" && call.writer);
  assert.ok(predictors.length >= 2);
  for (const call of predictors) assert.deepEqual(fields(call.writer), call.result.outputs);
});

test("a run ends with its status, outputs, inputs and totals", () => {
  const run = fold(LOG);
  const last = LOG.at(-1).data;
  assert.equal(run.status, "ok");
  assert.deepEqual(run.outputs, run.root.result.outputs);
  assert.ok(run.inputs.question);
  assert.deepEqual([run.totals.lm, run.totals.tools, run.totals.input, run.totals.output], [last.lm_calls, last.tool_calls, last.input_tokens, last.output_tokens]);
  assert.equal(run.running.size, 0);
});

test("totals while it runs are those at its end", () => {
  const { totals } = fold(LOG.slice(0, -1));
  const { totals: end } = fold(LOG);
  assert.deepEqual([totals.lm, totals.tools, totals.input, totals.output], [end.lm, end.tools, end.input, end.output]);
});

test("every call is under the call that made it", () => {
  const run = fold(LOG);
  for (const event of LOG.filter(({ event_type: type }) => type.endsWith("_start") && type !== "execution_start")) {
    assert.equal(run.calls.get(event.call_id).parent?.id ?? null, event.parent_call_id);
  }
});

test("state at a point is the fold of the events up to it", () => {
  const run = newRun();
  LOG.forEach((event, index) => {
    apply(run, event);
    if (index % 17) return;
    const other = fold(LOG.slice(0, index + 1));
    assert.deepEqual([other.count, other.status, [...other.calls.keys()], other.totals], [run.count, run.status, [...run.calls.keys()], run.totals]);
  });
});

test("a reset voids that field of that call, and only that", () => {
  const run = fold(events(
    ["lm_start", "a"], ["token", "a", { field: "answer", token: "Pa" }], ["token", "a", { field: "why", token: "x" }],
    ["reasoning", "a", { field: null, of: "reasoning", token: "hm" }],
    ["stream_reset", "a", { field: "answer", reason: "retry" }], ["token", "a", { field: "answer", token: "Rome" }],
    ["stream_reset", "a", { field: null, of: "reasoning", reason: "retry" }]));
  const text = Object.fromEntries([...run.calls.get("a").fields.values()].map((field) => [`${field.lane}:${field.name}`, field.text]));
  assert.deepEqual(text, { "field:answer": "Rome", "field:why": "x", "reasoning:": "" });
  assert.equal(run.drafts.get("answer").text, "Rome");
});

test("candidates are written side by side", () => {
  const run = fold(events(["lm_start", "a"], ["token", "a", { field: "q", token: "0", candidate: 0 }], ["token", "a", { field: "q", token: "1", candidate: 1 }], ["stream_reset", "a", { field: "q", candidate: 1, reason: "parse_error" }]));
  assert.deepEqual([...run.calls.get("a").fields.values()].map(({ candidate, text }) => [candidate, text]), [[0, "0"], [1, ""]]);
});

test("a field that is not text has the parsed value in the end", () => {
  const run = fold(events(["lm_start", "a"], ["token", "a", { field: "n", token: "Tr", raw: true }], ["token", "a", { field: "n", token: "", raw: true, value: true, finish_reason: "stop" }]));
  const [field] = run.calls.get("a").fields.values();
  assert.deepEqual([valueOf(field), field.text, field.done], [true, "Tr", true]);
});

test("native tool calls are told apart", () => {
  const tool = (name, id, token) => ["token", "a", { field: "tool_calls", token, raw: true, tool_name: name, tool_call_id: id }];
  const run = fold(events(["lm_start", "a"], tool("add", "1", '{"a"'), tool("add", "1", ":1}"), tool("add", "2", "{}")));
  assert.equal([...run.calls.get("a").fields.values()][0].text, 'add {"a":1}\nadd {}');
});

test("an error carries its hint, to the call and to the run", () => {
  const error = { type: "ValueError", code: "tool", message: "no", hint: "Check the arguments." };
  const run = fold(events(["tool_start", "a"], ["tool_error", "a", { error, duration_ms: 3 }], ["execution_error", "a", { error }]));
  assert.deepEqual([run.calls.get("a").error, run.error, run.status], [error, error, "error"]);
  assert.equal(took(run.calls.get("a"), 0), 3);
});

test("how a run was stopped is its status", () => {
  for (const code of ["cancelled", "timeout", "interrupted"]) assert.equal(fold(events(["execution_error", "a", { error: { code } }])).status, code);
});

test("an event of any name is a note in its call, whatever the name", () => {
  const names = ["passage_found", "constructor", "toString", "__proto__", "module_constructor", "foo_start", "prediction", "lm_"];
  const run = fold(events(["trace_start", "t"], ...names.map((name) => [name, "t", { outputs: 1 }])));
  assert.deepEqual(run.calls.get("t").children.map(({ name }) => name), names);
  assert.equal(run.outputs, undefined);
});

test("what lost its start or its end is shown all the same", () => {
  const run = fold(events(["gap", null, { count: 4, first: 0, last: 3 }], ["token", "a", { field: "f", token: "x" }], ["lm_end", "b", { duration_ms: 5 }], ["module_start", "c"], ["execution_end", "z", {}]));
  assert.deepEqual([...run.calls.values()].map(({ id, status }) => [id, status]), [["a", "running"], ["b", "ok"], ["c", "unknown"]]);
  assert.equal(run.lost, 4);
});

test("only the first five fields are needed", () => {
  assert.equal(fold([{ sequence: 0, event_type: "hello", timestamp: "2026-01-01T00:00:00Z", execution_id: "x", event_id: "x-0", data: {} }]).roots.length, 1);
});

test("folding 100,000 events takes a moment", () => {
  const many = events(["lm_start", "a"]);
  for (let sequence = 1; sequence < 100_000; sequence += 1) many.push({ ...BASE, sequence, event_type: "token", call_id: "a", data: { field: "answer", token: "word " } });
  const began = performance.now();
  assert.equal(fold(many).drafts.get("answer").text.length, 5 * 99_999);
  assert.ok(performance.now() - began < 1500);
});

// --- the outline ---

test("rows are the calls in order, each under its parent", () => {
  const run = fold(LOG);
  const all = rows(run, view());
  assert.equal(all.length, run.calls.size + LOG.filter(({ event_type: type }) => type === "passage_found").length);
  for (const { node, depth } of all) assert.equal(depth, node.depth);
});

test("a folded row hides what is inside", () => {
  const run = fold(LOG);
  assert.deepEqual(rows(run, view({ closed: new Set([run.root.id]) })).map(({ open }) => open), [false]);
});

test("what is inside of a hidden kind moves up", () => {
  const run = fold(LOG);
  const shown = rows(run, view({ hidden: new Set(["module", "adapter", "trace", "event"]) }));
  assert.deepEqual([...new Set(shown.map(({ node }) => node.kind))].sort(), ["lm", "tool"]);
  assert.ok(shown.every(({ depth }) => depth === 0));
});

test("a search keeps what matches and what is around it", () => {
  const run = fold(LOG);
  const found = rows(run, view({ match: remembered("sostratus") }));
  assert.ok(found.length > 1 && found.length < rows(run, view()).length);
  assert.equal(found[0].node, run.root);
  assert.deepEqual(rows(run, view({ match: remembered("no such text anywhere") })), []);
});

test("a search finds text that came later", () => {
  const run = fold(events(["lm_start", "a"]));
  const match = remembered("paris");
  assert.equal(rows(run, view({ match })).length, 0);
  apply(run, { ...BASE, sequence: 1, event_type: "token", call_id: "a", data: { field: "answer", token: "Paris" } });
  assert.equal(rows(run, view({ match })).length, 1);
});
