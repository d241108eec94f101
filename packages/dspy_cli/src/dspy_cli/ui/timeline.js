/** Where time is on a line: the scale and ticks of a waterfall, and the clock of a replay. No DOM. */

/** @typedef {{ start: number, end: number }} Span milliseconds */

const STEPS = [1, 2, 5];

/**
 * Round marks on a line of `length` milliseconds, about `wanted` of them.
 * @param {number} length @param {number} wanted @returns {number[]}
 */
export function ticks(length, wanted = 5) {
  if (!(length > 0)) return [0];
  const rough = length / Math.max(1, wanted);
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = (STEPS.find((factor) => factor * magnitude >= rough) ?? 10) * magnitude;
  return Array.from({ length: Math.floor(length / step) + 1 }, (_, index) => index * step);
}

/**
 * Left and width of a bar, as shares of the line from 0 to 1.
 * @param {Span} bar @param {Span} line
 */
export function place(bar, line) {
  const length = Math.max(line.end - line.start, 0.001);
  const left = clamp((bar.start - line.start) / length);
  return { left, width: Math.max(0, clamp((bar.end - line.start) / length) - left) };
}

/** @param {number} share */
const clamp = (share) => Math.min(1, Math.max(0, share));

/** Longest wait between two events of a replay, in milliseconds of the log: nobody watches a queue. */
export const LONGEST_WAIT = 3000;

/**
 * How many events of a log a replay has shown after `elapsed` milliseconds.
 * @param {(index: number) => number} timeOf of event `index`
 * @param {number} total @param {number} from events shown at the beginning @param {number} elapsed
 * @returns {{ shown: number, spent: number }} `spent` milliseconds of the log belong to those shown
 */
export function played(timeOf, total, from, elapsed) {
  let shown = from;
  let spent = 0;
  while (shown < total) {
    const wait = shown === 0 ? 0 : Math.min(LONGEST_WAIT, Math.max(0, timeOf(shown) - timeOf(shown - 1)));
    if (spent + wait > elapsed) break;
    spent += wait;
    shown += 1;
  }
  return { shown, spent };
}
