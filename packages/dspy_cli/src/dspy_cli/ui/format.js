/** Numbers, times and values in few characters. No DOM. */

/** @param {number} ms */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1) return "<1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  const rest = Math.round((ms % 60_000) / 1000);
  if (minutes < 60) return `${minutes} min ${rest} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number | null | undefined} number */
export function count(number) {
  if (number == null || !Number.isFinite(number)) return "–";
  if (number < 10_000) return number.toLocaleString("en");
  if (number < 1_000_000) return `${(number / 1000).toFixed(number < 100_000 ? 1 : 0)}k`;
  return `${(number / 1_000_000).toFixed(1)}M`;
}

/** @param {number | null | undefined} usd */
export function cost(usd) {
  if (usd == null || !Number.isFinite(usd)) return "–";
  if (usd === 0) return "$0";
  if (usd < 0.0001) return "<$0.0001";
  return `$${usd < 0.01 ? usd.toFixed(4) : usd < 1 ? usd.toFixed(3) : usd.toFixed(2)}`;
}

/** @param {string | number} when @param {number} now */
export function ago(when, now = Date.now()) {
  const seconds = Math.round((now - new Date(when).getTime()) / 1000);
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(when).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** @param {string | number} when */
export const clock = (when) => new Date(when).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

/**
 * A value on one line, at most `limit` characters.
 * @param {unknown} value @param {number} limit
 */
export function brief(value, limit = 120) {
  const text = typeof value === "string" ? value : JSON.stringify(clipped(value, limit)) ?? "";
  const line = text.slice(0, limit * 2).replace(/\s+/g, " ").trim();
  return line.length > limit ? `${line.slice(0, limit - 1)}…` : line;
}

/** A copy that is not much longer than `limit`, so that a megabyte is not encoded for one line. */
function clipped(/** @type {unknown} */ value, /** @type {number} */ limit, depth = 0) {
  if (typeof value === "string") return value.slice(0, limit);
  if (typeof value !== "object" || value === null) return value;
  if (depth > 3) return "…";
  if (Array.isArray(value)) return value.slice(0, 20).map((item) => clipped(item, limit, depth + 1));
  return Object.fromEntries(Object.entries(value).slice(0, 20).map(([key, item]) => [key, clipped(item, limit, depth + 1)]));
}

/**
 * `name=value, name=value`, for the arguments of a call.
 * @param {unknown} values @param {number} limit
 */
export function named(values, limit = 120) {
  if (typeof values !== "object" || values === null || Array.isArray(values)) return brief(values, limit);
  return brief(Object.entries(values).slice(0, 8).map(([name, value]) => `${name}=${brief(value, 60)}`).join(", "), limit);
}

/**
 * Whether any text in `value` contains `needle`, which is in lower case.
 * @param {unknown} value @param {string} needle @returns {boolean}
 */
export function contains(value, needle) {
  if (typeof value === "string") return value.toLowerCase().includes(needle);
  if (typeof value === "number" || typeof value === "boolean") return String(value).includes(needle);
  if (typeof value !== "object" || value === null) return false;
  if (Array.isArray(value)) return value.some((item) => contains(item, needle));
  for (const key in value) if (key.toLowerCase().includes(needle) || contains(/** @type {any} */ (value)[key], needle)) return true;
  return false;
}
