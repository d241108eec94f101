/** Logging in: the key goes to the server once and comes back as a cookie that no script can read. */

const theme = localStorage.getItem("dspy-cli:theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;

const base = new URL("..", import.meta.url);
const form = /** @type {HTMLFormElement} */ (document.getElementById("login"));
const key = /** @type {HTMLInputElement} */ (document.getElementById("key"));
const problem = /** @type {HTMLElement} */ (document.getElementById("problem"));
const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  button.disabled = true;
  try {
    const said = await logIn(key.value.trim());
    if (said) problem.textContent = said;
    else location.replace(destination());
  } catch {
    problem.textContent = "The server does not answer.";
  } finally {
    button.disabled = false;
    key.select();
  }
});

/** @param {string} value @returns {Promise<string>} why not, or "" */
async function logIn(value) {
  const response = await fetch(new URL("session", base), {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: value }), credentials: "same-origin",
  });
  if (response.ok) return "";
  const document = await response.json().catch(() => ({}));
  return String(document.detail || document.title || `The server answered ${response.status}.`);
}

/** Where the visitor came from, if that is on this server: never another site. */
function destination() {
  const asked = new URLSearchParams(location.search).get("next") ?? "";
  const to = new URL(asked || ".", base);
  return to.origin === base.origin && to.pathname.startsWith(base.pathname) ? to.pathname + to.search + location.hash : base.href;
}
