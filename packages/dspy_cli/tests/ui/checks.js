// What is wrong with the page for someone who cannot see it well; evaluated in it.
() => {
  const CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary, img, [role=tree], [role=listbox]";
  const LEAST_CONTRAST = 4.5; // WCAG 2.2, 1.4.3

  const textOf = (id) => document.getElementById(id)?.textContent ?? "";

  /** What a screen reader calls a control. */
  function nameOf(control) {
    const labels = [...(control.labels ?? [])].map((label) => label.textContent).join("");
    const by = (control.getAttribute("aria-labelledby") ?? "").split(" ").map(textOf).join("");
    const own = control.getAttribute("aria-label") || control.getAttribute("alt") || control.title;
    return (own || by || labels || control.textContent).trim();
  }

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  function rgba(color) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  }

  function luminance([red, green, blue]) {
    const [r, g, b] = [red, green, blue].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function background(element) {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255];
  }

  function contrast(element) {
    const pair = [luminance(rgba(getComputedStyle(element).color)), luminance(background(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  }

  function* texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); ) {
      const element = node.parentElement;
      if (node.data.trim() && element.checkVisibility() && !element.closest(":disabled, .visually-hidden, .skip, kbd")) yield element;
    }
  }

  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  return {
    nameless: [...document.querySelectorAll(CONTROLS)].filter((each) => each.checkVisibility() && !nameOf(each)).map((each) => each.outerHTML.slice(0, 200)),
    twice: ids.filter((id, index) => ids.indexOf(id) !== index),
    faint: [...texts()].filter((each) => contrast(each) < LEAST_CONTRAST).map((each) => `${contrast(each).toFixed(2)} .${each.className} ${each.textContent.slice(0, 40)}`),
  };
}
