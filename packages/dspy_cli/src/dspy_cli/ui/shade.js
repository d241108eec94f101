/** Light or dark: what the reader chose, else what the system says. */

export function flipTheme() {
  const root = document.documentElement;
  const dark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("dspy-cli:theme", root.dataset.theme);
}
