/** Errors as boxes: what happened, and what to do. */

import { asText, copyButton, h, icon } from "./dom.js";

/** @param {{ type?: string, code?: string, message?: string, hint?: string }} error */
export function errorBox({ type, code, message, hint }) {
  return h("div", { class: "error-box", role: "alert" }, icon("error"),
    h("div", { class: "error-text" },
      h("div", { class: "error-head" }, h("strong", null, type || "Error"), code && h("span", { class: "tag" }, code), h("span", { class: "spring" }), copyButton(() => asText(`${type}: ${message}`), "Copy error")),
      message && h("p", { class: "error-message" }, message),
      hint && h("p", { class: "hint" }, icon("hint"), h("span", null, hint))));
}

/** What went wrong with a request. @param {any} problem a Problem of api.js, or any error @param {() => void} [again] */
export function problemBox(problem, again) {
  const error = problem.document?.error;
  const box = errorBox({
    type: error?.type ?? problem.title ?? "Something went wrong",
    code: error?.code ?? (problem.status ? String(problem.status) : ""),
    message: error?.message ?? problem.message,
    hint: error?.hint ?? problem.document?.hint,
  });
  if (again) box.querySelector(".error-text")?.append(h("button", { type: "button", onclick: again }, "Try again"));
  return box;
}
