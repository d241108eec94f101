/** The server's HTTP interface. */

/** Where the app is mounted, with a slash at its end: the page may be part of another site. */
export const BASE = new URL("..", import.meta.url);

/** @param {string} path without a slash at its beginning */
export const url = (path) => new URL(path, BASE).href;

/** An answer that is not 2xx: an RFC 9457 document, or what can be said without one. */
export class Problem extends Error {
  /** @param {number} status @param {Record<string, any>} document */
  constructor(status, document) {
    super(String(document.detail || document.title || `The server answered ${status}.`));
    this.status = status;
    this.title = String(document.title || `Error ${status}`);
    this.document = document;
  }
}

/** @param {Response} response */
export async function problemOf(response) {
  const document = await response.json().catch(() => ({}));
  return new Problem(response.status, typeof document === "object" && document ? document : {});
}

/**
 * @param {string} path @param {RequestInit} [options]
 * @throws {Problem}
 */
async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(url(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, { title: "No connection", detail: "The server does not answer. Is it still running?" });
  }
  if (response.status === 401) logIn();
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Go to the login page, and come back here from it. */
export function logIn() {
  const back = `${location.pathname}${location.search}`;
  location.assign(`${url("ui/login.html")}?next=${encodeURIComponent(back)}${location.hash}`);
}

/** @param {unknown} body */
const json = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** @param {string} path */
const get = async (path) => (await send(path)).json();

export const programs = () => get("programs");

/** @param {Record<string, string | number>} [filter] */
export const runs = (filter = {}) => get(`runs?${new URLSearchParams(/** @type {any} */ (filter))}`);

/** @param {string} id */
export const run = (id) => get(`runs/${encodeURIComponent(id)}`);

/** @param {string} id */
export const cancel = async (id) => (await send(`runs/${encodeURIComponent(id)}/cancel`, json({}))).json();

export const logOut = () => send("session", { method: "DELETE" });

/** Start a run that goes on by itself. @param {string} program @param {unknown} body @returns {Promise<{ id: string, status: string }>} */
export async function start(program, body) {
  const request = json(body);
  return (await send(encodeURIComponent(program), { ...request, headers: { ...request.headers, Prefer: "respond-async" } })).json();
}

/**
 * Run a program and wait for what it returns.
 * @param {string} program @param {unknown} body @param {AbortSignal} signal
 * @returns {Promise<{ id: string, outputs: any }>}
 */
export async function call(program, body, signal) {
  const request = json(body);
  const headers = { ...request.headers, "On-Disconnect": "cancel" };
  const response = await send(encodeURIComponent(program), { ...request, headers, signal });
  return { id: response.headers.get("Run-Id") ?? "", outputs: await response.json() };
}

/**
 * The events of a run as a stream, from the one after `after`.
 * @param {string} id @param {number} after @param {AbortSignal} signal
 */
export async function events(id, after, signal) {
  const query = after >= 0 ? `?after=${after}` : "";
  const headers = { Accept: "text/event-stream", ...(after >= 0 ? { "Last-Event-ID": String(after) } : {}) };
  const response = await fetch(url(`runs/${encodeURIComponent(id)}/events${query}`), {
    signal, headers, cache: "no-store", credentials: "same-origin",
  });
  if (response.status === 401) logIn();
  return response;
}
