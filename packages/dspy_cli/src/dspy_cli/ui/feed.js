/**
 * The log of one run: received once and in order, folded up to a position a frame at a time. Knows no DOM but the
 * page's visibility.
 */

import { apply, newRun } from "./fold.js";
import { Cursor, Gate, Refused, follow, isPrediction } from "./sse.js";

/** Milliseconds of a frame that may go into decoding and folding; the rest is for drawing and for the reader. */
const BUDGET_MS = 7;
/** How long a page may be in the background before its connection is given up. */
const HIDDEN_MS = 8000;

/** @import { Event, Run } from "./fold.js" */
/** @import { Connection, Frame } from "./sse.js" */

export class Feed {
  /**
   * @param {string} id of the run
   * @param {object} how
   * @param {(after: number, signal: AbortSignal) => Promise<Response>} how.open
   * @param {(error: Refused) => void} how.onRefused
   * @param {() => void} how.onFrame something is to be drawn
   * @param {(callback: () => void) => unknown} [how.nextFrame]
   */
  constructor(id, { open, onRefused, onFrame, nextFrame = (callback) => requestAnimationFrame(callback) }) {
    this.id = id;
    /** @type {Event[]} */ this.events = [];
    this.run = newRun(id);
    /** Events to show; infinite follows the log. */
    this.target = Infinity;
    /** @type {Connection} */ this.connection = "connecting";
    /** Connections that were made again. */
    this.resumed = 0;
    this.generation = 0;
    /** When the last event came, on this page's clock. */
    this.heard = performance.now();
    this.#how = { open, onRefused, onFrame, nextFrame };
  }

  #how;
  #controller = new AbortController();
  #gate = new Gate();
  /** @type {Frame[]} */ #queue = [];
  #taken = 0;
  #scheduled = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #hiding;

  /** Begin to receive. */
  start() {
    globalThis.document?.addEventListener("visibilitychange", this.#onVisibility);
    this.#onVisibility();
    follow({
      open: this.#how.open,
      cursor: new Cursor(-1),
      gate: this.#gate,
      signal: this.#controller.signal,
      onFrames: (frames) => this.receive(frames),
      onState: (state) => this.#state(state),
    }).catch((error) => {
      if (!(error instanceof Refused)) throw error;
      this.#how.onRefused(error);
    });
  }

  /** Stop for good. */
  close() {
    globalThis.document?.removeEventListener("visibilitychange", this.#onVisibility);
    clearTimeout(this.#hiding);
    this.#controller.abort();
    this.#queue = [];
  }

  #onVisibility = () => {
    clearTimeout(this.#hiding);
    if (!globalThis.document?.hidden) this.#gate.set(false);
    else this.#hiding = setTimeout(() => this.#gate.set(true), HIDDEN_MS);
  };

  /** @param {Connection} state */
  #state(state) {
    if (state === "live" && ["reconnecting", "offline", "paused"].includes(this.connection)) this.resumed += 1;
    this.connection = state;
    this.schedule();
  }

  /** @param {Frame[]} frames */
  receive(frames) {
    for (const frame of frames) this.#queue.push(frame);
    this.heard = performance.now();
    this.schedule();
  }

  /** Frames that are not decoded yet. */
  get waiting() {
    return this.#queue.length - this.#taken;
  }

  /** Events that came, or are in the log, and are not folded though they should be. */
  get behind() {
    return this.waiting + Math.min(this.target, this.events.length) - this.run.count;
  }

  /** Whether what is shown is what is known. */
  get settled() {
    return this.behind <= 0;
  }

  get following() {
    return this.target === Infinity;
  }

  /** Show the run as it was after `position` events. @param {number} position */
  seek(position) {
    this.target = position;
    if (position < this.run.count) {
      this.run = newRun(this.id);
      this.generation += 1;
    }
    this.schedule();
  }

  /** Do the work of the next frame, once. */
  schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#how.nextFrame(() => {
      this.#scheduled = false;
      if (this.#controller.signal.aborted) return;
      this.step();
      this.#how.onFrame();
      if (!this.settled) this.schedule();
    });
  }

  /** Decode and fold for as long as a frame allows. @param {number} budget milliseconds */
  step(budget = BUDGET_MS) {
    const until = performance.now() + budget;
    const late = () => performance.now() > until;
    while (this.#taken < this.#queue.length) {
      this.events.push(decoded(this.#queue[this.#taken++], this.events.at(-1)));
      if (this.#taken % 64 === 0 && late()) break;
    }
    if (this.#taken === this.#queue.length && this.#taken) {
      this.#queue = [];
      this.#taken = 0;
    }
    const end = Math.min(this.target, this.events.length);
    while (this.run.count < end) {
      apply(this.run, this.events[this.run.count]);
      if (this.run.count % 64 === 0 && late()) break;
    }
  }
}

/**
 * @param {Frame} frame @param {Event | undefined} before
 * @returns {Event}
 */
function decoded(frame, before) {
  const sequence = Number(frame.id);
  const bare = { sequence, timestamp: before?.timestamp ?? "", execution_id: before?.execution_id ?? "" };
  try {
    const read = JSON.parse(frame.data);
    if (isPrediction(frame)) return { ...bare, event_type: "prediction", data: read };
    return { ...read, data: read.data ?? {} };
  } catch {
    return { ...bare, event_type: "unreadable", data: { name: frame.event, text: frame.data } };
  }
}
