/** The scrubber under a run: any point of its log, played at the pace it was written or faster. */

import { fill, h, icon, iconButton, say } from "./dom.js";
import { milliseconds } from "./fold.js";
import { count, duration } from "./format.js";
import { played } from "./timeline.js";
/** @import { Feed } from "./feed.js" */

const SPEEDS = [["1", "1×"], ["4", "4×"], ["0", "Instant"]];

export class Player {
  /** @param {Feed} feed @param {() => void} onSeek */
  constructor(feed, onSeek) {
    this.feed = feed;
    this.#onSeek = onSeek;
    this.range = h("input", { type: "range", min: "0", max: "0", step: "1", class: "scrubber", "aria-label": "Event of the run", oninput: () => this.seek(Number(this.range.value)) });
    this.button = iconButton("Play", "play", () => this.toggle());
    this.speed = h("select", { class: "speed", "aria-label": "Speed of the replay" }, SPEEDS.map(([value, label]) => h("option", { value }, label)));
    this.place = h("span", { class: "place num" });
    this.element = h("div", { class: "player", role: "group", "aria-label": "Replay" }, this.button,
      iconButton("One event back", "back", () => this.seek(this.feed.run.count - 1), { class: "icon-button step" }),
      iconButton("One event on", "right", () => this.seek(this.feed.run.count + 1), { class: "icon-button step" }),
      this.range, this.place, this.speed);
  }

  #onSeek;
  #playing = false;
  #frame = 0;

  get playing() {
    return this.#playing;
  }

  close() {
    this.pause();
  }

  toggle() {
    if (this.#playing) this.pause();
    else this.play();
  }

  /** @param {number} position */
  seek(position) {
    this.pause();
    this.#go(Math.max(0, Math.min(position, this.feed.events.length)));
  }

  /** @param {number} position */
  #go(position) {
    this.feed.seek(position >= this.feed.events.length ? Infinity : position);
    this.#onSeek();
  }

  play() {
    const { feed } = this;
    if (this.speed.value === "0") return this.#go(feed.events.length);
    if (feed.run.count >= feed.events.length) this.#go(0);
    this.#playing = true;
    let shown = Math.min(feed.target, feed.run.count);
    let credit = 0;
    let before = performance.now();
    const timeOf = (/** @type {number} */ index) => milliseconds(feed.events[index].timestamp) || 0;
    const tick = (/** @type {number} */ now) => {
      if (!this.#playing) return;
      credit += (now - before) * (Number(this.speed.value) || Infinity);
      before = now;
      const next = played(timeOf, feed.events.length, shown, credit);
      credit -= next.spent;
      if (next.shown !== shown) {
        shown = next.shown;
        this.#go(shown);
      }
      if (shown >= feed.events.length) this.pause();
      else this.#frame = requestAnimationFrame(tick);
    };
    this.#frame = requestAnimationFrame(tick);
    this.#face();
  }

  pause() {
    this.#playing = false;
    cancelAnimationFrame(this.#frame);
    this.#face();
  }

  #face() {
    fill(this.button, icon(this.#playing ? "pause" : "play"));
    const label = this.#playing ? "Pause" : "Play";
    this.button.title = label;
    this.button.setAttribute("aria-label", label);
  }

  draw() {
    const { run, events } = this.feed;
    if (this.range.max !== String(events.length)) this.range.max = String(events.length);
    if (Number(this.range.value) !== run.count) this.range.value = String(run.count);
    const at = duration(Math.max(0, run.now - run.start));
    this.range.setAttribute("aria-valuetext", `event ${run.count} of ${events.length}, ${at}`);
    this.range.style.setProperty("--done", `${events.length ? (100 * run.count) / events.length : 0}%`);
    say(this.place, `${count(run.count)} / ${count(events.length)} · ${at}`);
  }
}
