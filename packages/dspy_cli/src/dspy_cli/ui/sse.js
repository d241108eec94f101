/**
 * Server-sent events over fetch: a parser without I/O, a cursor that keeps events exactly once and in order, and
 * a loop that follows a stream over broken connections.
 *
 * EventSource is not used: it can neither send headers nor tell a 401 from a dropped line.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */

/** @typedef {{ id: string, event: string, data: string }} Frame */

/** Text in any pieces -> frames. */
export class Parser {
  #rest = "";
  #id = "";
  #event = "";
  /** @type {string[]} */ #data = [];
  #first = true;
  /** Milliseconds the server asked a client to wait before it connects again. */
  retry = 1000;

  /**
   * Frames that `text` completes.
   * @param {string} text
   * @returns {Frame[]}
   */
  push(text) {
    if (this.#first && text) {
      this.#first = false;
      if (text.startsWith("\ufeff")) text = text.slice(1);
    }
    const all = this.#rest + text;
    /** @type {Frame[]} */ const frames = [];
    let start = 0;
    let lf = all.indexOf("\n");
    let cr = all.indexOf("\r"); // searched for again only past the last: most streams have none
    for (;;) {
      if (lf >= 0 && lf < start) lf = all.indexOf("\n", start);
      if (cr >= 0 && cr < start) cr = all.indexOf("\r", start);
      const byCr = cr >= 0 && (lf < 0 || cr < lf);
      const end = byCr ? cr : lf;
      // A CR at the very end may be half of a CRLF.
      if (end < 0 || (byCr && end + 1 === all.length)) break;
      this.#line(all.slice(start, end), frames);
      start = end + (byCr && all[end + 1] === "\n" ? 2 : 1);
    }
    this.#rest = all.slice(start);
    return frames;
  }

  /** @param {string} line @param {Frame[]} frames */
  #line(line, frames) {
    if (line === "") return this.#dispatch(frames);
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }

  /** @param {Frame[]} frames */
  #dispatch(frames) {
    if (this.#data.length) frames.push({ id: this.#id, event: this.#event || "message", data: this.#data.join("\n") });
    this.#event = "";
    this.#data = [];
  }
}

/**
 * Whether `frame` is what the program returned, and not an event of that name that the program made up.
 * @param {Frame} frame
 */
export const isPrediction = (frame) => frame.event === "prediction" && frame.data.startsWith('{"outputs"');

/** Which frames were seen: drops repeats, notices what is missing, knows the last. */
export class Cursor {
  /** @param {number} after the last sequence already seen */
  constructor(after = -1) {
    this.last = after;
    this.ended = false;
    this.#forgiven = NaN;
  }

  /** A place where frames are missing although we have asked for them again. */
  #forgiven;

  /**
   * The frames that are new, in order. `missing` is the first sequence that should have come and did not: what
   * follows it was not taken, so that asking again `after` the last brings it. A place that stays empty is
   * skipped the second time.
   * @param {Frame[]} frames
   * @returns {{ fresh: Frame[], missing: number | null }}
   */
  take(frames) {
    /** @type {Frame[]} */ const fresh = [];
    for (const frame of frames) {
      const sequence = Number(frame.id);
      if (frame.id === "" || !Number.isInteger(sequence) || sequence <= this.last) continue;
      const expected = this.last + 1;
      if (sequence > expected && frame.event !== "gap" && this.#forgiven !== expected) {
        this.#forgiven = expected;
        return { fresh, missing: expected };
      }
      this.last = sequence;
      this.ended = isLast(frame);
      fresh.push(frame);
    }
    return { fresh, missing: null };
  }
}

/** @param {Frame} frame */
function isLast(frame) {
  if (frame.event === "gap") return JSON.parse(frame.data).data?.ended === true;
  return frame.event === "execution_error" || isPrediction(frame);
}

/** The server's answer says that asking again is of no use. */
export class Refused extends Error {
  /** @param {Response} response */
  constructor(response) {
    super(`The server answered ${response.status}.`);
    this.status = response.status;
    this.response = response;
  }
}

/**
 * Milliseconds to wait before the try numbered `attempt` (from 1): doubling, bounded, with full jitter above
 * half, so that a thousand pages do not return at once.
 * @param {number} attempt @param {number} base @param {() => number} random
 */
export function backoff(attempt, base = 500, random = Math.random) {
  const bound = Math.min(15_000, base * 2 ** Math.min(attempt - 1, 10));
  return bound / 2 + (bound / 2) * random();
}

/** Seconds without a byte, heartbeats included, after which a connection is taken for dead. */
const SILENCE_MS = 45_000;

/** @typedef {"connecting" | "live" | "reconnecting" | "offline" | "paused" | "done" | "failed"} Connection */

/**
 * Follow a stream until its last event, over any number of connections.
 * @param {object} how
 * @param {(after: number, signal: AbortSignal) => Promise<Response>} how.open
 * @param {(frames: Frame[]) => void | Promise<void>} how.onFrames each frame once and in order
 * @param {(state: Connection) => void} how.onState
 * @param {AbortSignal} how.signal ends it
 * @param {Gate} [how.gate] closed while the page is in the background
 * @param {Cursor} [how.cursor]
 * @param {(ms: number, signal: AbortSignal) => Promise<void>} [how.sleep]
 * @param {() => number} [how.random]
 * @param {number} [how.silence] milliseconds
 * @throws {Refused} the stream will not come
 */
export async function follow(how) {
  const { open, onFrames, onState, signal, gate = new Gate(), cursor = new Cursor(), sleep = pause } = how;
  const { random = Math.random, silence = SILENCE_MS } = how;
  const parsed = { retry: 500 };
  for (let attempt = 0; !signal.aborted; ) {
    if (gate.closed) {
      onState("paused");
      await gate.opening(signal);
      attempt = 0;
      continue;
    }
    onState(attempt ? "reconnecting" : "connecting");
    const connection = connected(signal, gate, silence);
    try {
      const response = await open(cursor.last, connection.signal);
      if (response.status === 204) return onState("done");
      if (!response.ok) await refuse(response);
      onState("live");
      const parser = new Parser();
      for await (const text of chunks(response, connection)) {
        const { fresh, missing } = cursor.take(parser.push(text));
        parsed.retry = parser.retry;
        if (fresh.length) {
          attempt = 0;
          await onFrames(fresh);
        }
        if (cursor.ended) return onState("done");
        if (missing !== null) break;
      }
    } catch (error) {
      if (error instanceof Refused) {
        onState("failed");
        throw error;
      }
    } finally {
      connection.close();
    }
    if (signal.aborted || gate.closed) continue;
    attempt += 1;
    onState(online() ? "reconnecting" : "offline");
    await sleep(backoff(attempt, Math.min(parsed.retry, 5000) / 2, random), signal);
  }
}

const TRY_AGAIN = new Set([408, 425, 429, 500, 502, 503, 504]);

/** @param {Response} response */
async function refuse(response) {
  if (TRY_AGAIN.has(response.status)) throw new Error(`status ${response.status}`);
  throw new Refused(response);
}

const online = () => globalThis.navigator?.onLine !== false;

/** @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      globalThis.removeEventListener?.("online", done);
      resolve(undefined);
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    globalThis.addEventListener?.("online", done);
  });
}

/**
 * A signal for one connection: aborted with the whole, when the gate closes, or after silence.
 * @param {AbortSignal} signal @param {Gate} gate @param {number} silence
 */
function connected(signal, gate, silence) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let timer = setTimeout(abort, silence);
  signal.addEventListener("abort", abort);
  const forget = gate.onClose(abort);
  return {
    signal: controller.signal,
    heard() {
      clearTimeout(timer);
      timer = setTimeout(abort, silence);
    },
    close() {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      forget();
      abort();
    },
  };
}

/** @param {Response} response @param {{ heard(): void }} connection */
async function* chunks(response, connection) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      connection.heard();
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Open or closed, and a way to wait for either. */
export class Gate {
  closed = false;
  /** @type {Set<() => void>} */ #closing = new Set();
  /** @type {Set<() => void>} */ #opening = new Set();

  /** @param {boolean} closed */
  set(closed) {
    if (closed === this.closed) return;
    this.closed = closed;
    for (const wake of [...(closed ? this.#closing : this.#opening)]) wake();
  }

  /** @param {() => void} callback @returns {() => void} forgets it */
  onClose(callback) {
    this.#closing.add(callback);
    return () => this.#closing.delete(callback);
  }

  /** @param {AbortSignal} signal @returns {Promise<void>} when it opens, or at the signal */
  opening(signal) {
    if (!this.closed || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#opening.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#opening.add(done);
      signal.addEventListener("abort", done);
    });
  }
}
