/* Runs before the page is drawn, so that a chosen theme does not flash the other one. */
(() => {
  const kept = localStorage.getItem("dspy-cli:theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
})();
