// The reader of server-sent events: any cut, any line ending, every event once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Cursor, Gate, Parser, Refused, backoff, follow, isPrediction } from "../../src/dspy_cli/ui/sse.js";

const STREAM = "retry: 1000\n\nid: 0\nevent: token\ndata: {\"a\": \"ä €\"}\n\n: keep-alive\n\nid: 1\nevent: end\ndata: one\ndata: two\n\ndata:none\nid\n\n";
const FRAMES = [
  { id: "0", event: "token", data: '{"a": "ä €"}' },
  { id: "1", event: "end", data: "one\ntwo" },
  { id: "", event: "message", data: "none" },
];

const frame = (id, event = "token", data = `{"event_id":"x-${id}"}`) => ({ id: String(id), event, data });
const text = (...frames) => frames.map(({ id, event, data }) => `id: ${id}\nevent: ${event}\ndata: ${data}\n\n`).join("");
const END = frame(9, "prediction", '{"outputs":{}}');

for (const ending of ["\n", "\r\n", "\r"]) {
  test(`where a stream is cut does not matter: ${JSON.stringify(ending)}`, () => {
    const whole = `${STREAM.replaceAll("\n", ending)}: the end${ending}`;
    for (let cut = 0; cut <= whole.length; cut += 1) {
      const parser = new Parser();
      assert.deepEqual([...parser.push(whole.slice(0, cut)), ...parser.push(whole.slice(cut))], FRAMES, `cut at ${cut}`);
      assert.equal(parser.retry, 1000);
    }
    const parser = new Parser();
    assert.deepEqual([...whole].flatMap((character) => parser.push(character)), FRAMES);
  });
}

test("a byte order mark is no part of the first line", () => {
  assert.deepEqual(new Parser().push("\ufeffdata: x\n\n"), [{ id: "", event: "message", data: "x" }]);
});

test("a long stream costs time in proportion", () => {
  const frames = Array.from({ length: 50_000 }, (_, id) => frame(id, "token", "x".repeat(200)));
  const began = performance.now();
  assert.equal(new Parser().push(text(...frames)).length, frames.length);
  assert.ok(performance.now() - began < 2000);
});

test("a cursor drops what it has seen", () => {
  const cursor = new Cursor(3);
  const { fresh } = cursor.take([frame(2), frame(3), frame(4), frame(4), frame(5)]);
  assert.deepEqual(fresh.map(({ id }) => id), ["4", "5"]);
});

test("a cursor asks again for what is missing, and goes on when it is not there", () => {
  const cursor = new Cursor();
  const first = cursor.take([frame(0), frame(2), frame(3)]);
  assert.deepEqual([first.fresh.length, first.missing, cursor.last], [1, 1, 0]);
  const again = cursor.take([frame(2), frame(3)]);
  assert.deepEqual([again.fresh.length, again.missing, cursor.last], [2, null, 3]);
});

test("a gap event stands for what is missing", () => {
  const gap = frame(5, "gap", '{"data":{"first":1,"last":5,"ended":true}}');
  const cursor = new Cursor(0);
  assert.deepEqual(cursor.take([gap]), { fresh: [gap], missing: null });
  assert.ok(cursor.ended);
});

test("only a real prediction is the end", () => {
  assert.ok(isPrediction(END));
  assert.ok(!isPrediction(frame(1, "prediction")), "an event of that name which the program emitted");
  const cursor = new Cursor();
  cursor.take([frame(0), frame(1, "prediction"), frame(2, "execution_end")]);
  assert.ok(!cursor.ended, "the prediction is still to come");
  cursor.take([frame(3, "prediction", '{"outputs":{"a":1}}')]);
  assert.ok(cursor.ended);
});

test("waiting doubles, is bounded and differs from page to page", () => {
  assert.equal(backoff(1, 500, () => 1), 500);
  assert.equal(backoff(3, 500, () => 0), 1000);
  assert.equal(backoff(50, 500, () => 1), 15_000);
});

/** A server whose connections send `pieces[n]` and then end or break. */
function served(...pieces) {
  const asked = [];
  const open = async (after) => {
    asked.push(after);
    const piece = pieces[asked.length - 1] ?? 204;
    if (typeof piece === "number") return new Response(piece === 204 ? null : "{}", { status: piece });
    if (piece instanceof Error) throw piece;
    let sent = false;
    return new Response(new ReadableStream({
      pull(controller) {
        if (!sent) controller.enqueue(new TextEncoder().encode(piece));
        else if (piece.endsWith("\n\n")) controller.close();
        else controller.error(new Error("reset"));
        sent = true;
      },
    }));
  };
  return { asked, open };
}

async function followed(server, more = {}) {
  const got = [];
  const states = [];
  const controller = new AbortController();
  await follow({
    open: server.open, signal: controller.signal, sleep: async () => {}, random: () => 0,
    onFrames: (frames) => { got.push(...frames.map(({ id }) => Number(id))); }, onState: (state) => states.push(state), ...more,
  });
  return { got, states };
}

test("a broken stream goes on after the last event, and nothing comes twice", async () => {
  const server = served(text(frame(0), frame(1)).slice(0, -1), new TypeError("offline"), 503, text(frame(1), frame(2)), text(frame(3, "prediction", '{"outputs":1}')));
  const { got, states } = await followed(server);
  assert.deepEqual(got, [0, 1, 2, 3]);
  assert.deepEqual(server.asked, [-1, 0, 0, 0, 2]);
  assert.equal(states.at(-1), "done");
  assert.ok(states.includes("reconnecting"));
});

test("204 means that all was seen", async () => {
  const { got, states } = await followed(served(text(frame(0)), 204));
  assert.deepEqual([got, states.at(-1)], [[0], "done"]);
});

test("what the server lacks is asked for once more, then shown as it is", async () => {
  const server = served(text(frame(0), frame(2)), text(frame(2)), text(frame(3, "prediction", END.data)));
  assert.deepEqual((await followed(server)).got, [0, 2, 3]);
  assert.deepEqual(server.asked, [-1, 0, 2]);
});

test("an answer that will not change ends it", async () => {
  for (const status of [401, 403, 404, 410]) await assert.rejects(followed(served(status)), (error) => error instanceof Refused && error.status === status);
});

test("a closed gate holds no connection, and opening resumes", async () => {
  const gate = new Gate();
  const controller = new AbortController();
  const asked = [];
  const states = [];
  const open = (after, signal) => {
    asked.push(after);
    if (asked.length === 2) return Promise.resolve(new Response(text(frame(1, "execution_error"))));
    return Promise.resolve(new Response(new ReadableStream({
      start(stream) {
        stream.enqueue(new TextEncoder().encode(text(frame(0))));
        signal.addEventListener("abort", () => stream.error(new Error("aborted")));
      },
    })));
  };
  await follow({
    open, gate, signal: controller.signal, sleep: async () => {},
    onFrames: (frames) => frames[0].id === "0" && setTimeout(() => gate.set(true)),
    onState: (state) => { states.push(state); if (state === "paused") setTimeout(() => gate.set(false)); },
  });
  assert.deepEqual(asked, [-1, 0]);
  assert.deepEqual(states, ["connecting", "live", "paused", "connecting", "live", "done"]);
});

test("a silent connection is made again", async () => {
  let asked = 0;
  const open = (_, signal) => {
    asked += 1;
    if (asked === 2) return Promise.resolve(new Response(null, { status: 204 }));
    return Promise.resolve(new Response(new ReadableStream({ start: (stream) => signal.addEventListener("abort", () => stream.error(new Error("aborted"))) })));
  };
  await follow({ open, signal: new AbortController().signal, sleep: async () => {}, silence: 20, onFrames() {}, onState() {} });
  assert.equal(asked, 2);
});
