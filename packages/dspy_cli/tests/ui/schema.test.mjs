// JSON Schema -> form, on the schema that the server made of a program (in the file SCHEMA names) and on single cases.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { blank, fitting, form, given, initial, nearest, pointer, put, steps, turnFields } from "../../src/dspy_cli/ui/schema.js";
import { brief, contains, cost, count, duration, named } from "../../src/dspy_cli/ui/format.js";
import { place, played, ticks } from "../../src/dspy_cli/ui/timeline.js";
import { literal } from "../../src/dspy_cli/ui/snippets.js";

const EVERYTHING = form(JSON.parse(readFileSync(process.env.SCHEMA, "utf8")));
const one = (schema) => form({ type: "object", properties: { x: schema } }).fields.x;

test("every kind of field of a program is known", () => {
  const kinds = Object.fromEntries(Object.entries(EVERYTHING.fields).map(([name, { kind }]) => [name, kind]));
  assert.deepEqual(kinds, {
    title: "text", author: "object", picture: "image", history: "history", kind: "choice", colour: "choice", count: "integer",
    temperature: "number", urgent: "boolean", due: "date", keywords: "list", readers: "list", numbers: "json",
  });
  assert.equal(EVERYTHING.fields.readers.items.kind, "object");
  assert.deepEqual(EVERYTHING.fields.colour.choices, ["red", "green"]);
});

test("a form begins with the defaults, and sends no more than was given", () => {
  assert.deepEqual(given(blank(EVERYTHING)), { author: {}, kind: "memo", colour: "red", count: 3, temperature: 0.7, urgent: false, keywords: ["alpha"], readers: [] });
});

test("Optional is a field that may be left out", () => {
  const { address } = EVERYTHING.fields.author.fields;
  assert.deepEqual([address.kind, address.nullable, address.required, initial(address)], ["object", true, false, undefined]);
  assert.deepEqual(given(blank(address)), { country: "DE" });
});

test("a schema that contains itself is a form all the same", () => {
  const tree = { $ref: "#/$defs/Tree" };
  const root = form({ type: "object", properties: { tree }, required: ["tree"], $defs: { Tree: { type: "object", properties: { name: { type: "string" }, inside: { type: "array", items: tree } }, required: ["name"] } } });
  assert.equal(root.fields.tree.fields.inside.items.fields.inside.items.fields.name.kind, "text");
  assert.deepEqual(given(blank(root)), { tree: {} });
});

test("odd schemas fall back to JSON", () => {
  for (const schema of [{}, true, { type: "object", additionalProperties: { type: "integer" } }, { type: "array", prefixItems: [{}] }, { $ref: "#/nowhere" }, { $ref: "#/properties/x" }]) assert.equal(one(schema).kind, "json", JSON.stringify(schema));
});

test("kinds by schema", () => {
  assert.deepEqual([one({ const: 3 }).kind, blank(one({ const: 3 }))], ["choice", 3]);
  assert.equal(one({ type: ["string", "null"] }).kind, "text");
  assert.equal(one({ type: ["string", "object"], format: "code" }).kind, "code");
  assert.equal(one({ type: ["string", "object"], properties: { content: {} } }).kind, "text");
  assert.equal(one({ allOf: [{ type: "integer" }], default: 4 }).standard, 4);
  assert.equal(one({ type: "string", format: "constructor" }).kind, "text");
});

test("a union shows the option that fits the value", () => {
  const union = one({ anyOf: [{ type: "integer" }, { type: "string" }, { type: "array", items: {} }, { type: "null" }] });
  assert.deepEqual([union.kind, union.nullable, union.options.length], ["union", true, 3]);
  assert.deepEqual([3, "a", [1], undefined].map((value) => fitting(union, value)), [0, 1, 2, 0]);
});

test("a chat's turns have the program's inputs and outputs", () => {
  const inputs = { type: "object", properties: { question: { type: "string" }, history: { type: "object", format: "history" } } };
  assert.deepEqual(turnFields(inputs, { properties: { answer: {} } }), ["question", "answer"]);
});

test("values are put by path, and pointers go there and back", () => {
  const value = {};
  put(value, ["a", 1, "b/c~"], 5);
  assert.deepEqual(value, { a: [, { "b/c~": 5 }] });
  assert.equal(pointer(["a", 1, "b/c~"]), "/a/1/b~1c~0");
  assert.deepEqual(steps("#/a%20b/b~1c~0"), ["a b", "b/c~"]);
  assert.deepEqual(steps("#/100%"), ["100%"]);
});

test("an error goes to the field, or the nearest around it", () => {
  const known = new Set(["/a", "/a/b"]);
  const at = (text) => nearest(text, (each) => known.has(each));
  assert.deepEqual([at("#/a/b"), at("/a/int/x"), at("#/zzz"), at("")], ["/a/b", "/a", null, null]);
});

// --- numbers, times, values ---

test("numbers and times are short", () => {
  assert.deepEqual([0.4, 12, 1234, 12_345, 61_000, 3_700_000, NaN].map(duration), ["<1 ms", "12 ms", "1.23 s", "12.3 s", "1 min 1 s", "1 h 1 min", "–"]);
  assert.deepEqual([0, 9999, 12_345, 1_500_000, null].map(count), ["0", "9,999", "12.3k", "1.5M", "–"]);
  assert.deepEqual([0, 0.00001, 0.0012, 0.5, 12, null].map(cost), ["$0", "<$0.0001", "$0.0012", "$0.500", "$12.00", "–"]);
});

test("a value fits on a line", () => {
  assert.equal(brief("a\n  b"), "a b");
  assert.equal(brief({ a: "x".repeat(1e6) }, 20).length, 20);
  assert.equal(named({ city: "Rome", n: 1 }), "city=Rome, n=1");
  const cycle = [[[[[[1]]]]]];
  assert.ok(brief(cycle).includes("…"));
});

test("a search looks into names and values", () => {
  assert.ok(contains({ a: [{ B: "Rome" }] }, "rome") && contains({ Key: 1 }, "key") && contains(42, "4"));
  assert.ok(!contains({ a: null }, "x"));
});

test("ticks are round and few", () => {
  assert.deepEqual(ticks(1000, 4), [0, 500, 1000]);
  assert.deepEqual(ticks(0), [0]);
  for (const length of [1, 7, 42, 999, 123_456]) assert.ok(ticks(length, 5).length <= 7);
});

test("a bar stays on its line", () => {
  assert.deepEqual(place({ start: 5, end: 10 }, { start: 0, end: 20 }), { left: 0.25, width: 0.25 });
  assert.deepEqual(place({ start: -5, end: 90 }, { start: 0, end: 20 }), { left: 0, width: 1 });
});

test("a replay keeps the pace of the log, but waits for nobody", () => {
  const times = [0, 100, 200, 90_000, 90_100];
  const after = (elapsed) => played((index) => times[index], times.length, 0, elapsed).shown;
  assert.deepEqual([0, 99, 100, 250, 3200, 3300].map(after), [1, 1, 2, 3, 4, 5]);
});

test("a Python literal is JSON but for its names", () => {
  assert.equal(literal({ a: [true, null, 'quo"te'] }), '{"a": [True, None, "quo\\"te"]}');
  assert.ok(literal({ a: "x".repeat(90) }).includes("\n    \"a\""));
});
