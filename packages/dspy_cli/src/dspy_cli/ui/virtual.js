/** A list of any length of which only the rows in sight exist. */

import { h, onScrollUp } from "./dom.js";

const BEYOND = 6;

/** @template Item */
export class VirtualList {
  /**
   * @param {object} how
   * @param {number} how.rowHeight pixels
   * @param {() => HTMLElement} how.make an empty row
   * @param {(row: HTMLElement, item: Item, index: number) => void} how.show
   * @param {Record<string, any>} how.about of the scrolling element
   */
  constructor({ rowHeight, make, show, about }) {
    this.rowHeight = rowHeight;
    /** @type {ArrayLike<Item>} */ this.items = [];
    this.inner = h("div", { class: "virtual-inner", role: "presentation" });
    this.element = h("div", { ...about, class: `virtual ${about.class ?? ""}` }, this.inner);
    /** Whether the end stays in sight while the list grows. */
    this.following = false;
    /** Told when the reader scrolls, and whether to the end. @type {(atEnd: boolean) => void} */
    this.onReader = () => {};
    this.#make = make;
    this.#show = show;
    this.element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    onScrollUp(this.element, () => {
      this.following = false;
      this.onReader(false);
    });
    this.#observer = new ResizeObserver(() => this.draw());
    this.#observer.observe(this.element);
  }

  #make;
  #show;
  #observer;
  /** @type {HTMLElement[]} */ #rows = [];
  #length = -1;
  #expected = -1;

  close() {
    this.#observer.disconnect();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    if (Math.abs(scrollTop - this.#expected) > 2) {
      const atEnd = scrollTop + clientHeight >= scrollHeight - this.rowHeight;
      this.following &&= atEnd;
      this.onReader(atEnd);
    }
    this.#expected = -1;
    this.draw();
  }

  /** @param {ArrayLike<Item>} items */
  set(items) {
    this.items = items;
    this.draw();
  }

  /** Show the rows in sight. */
  draw() {
    const { length } = this.items;
    if (length !== this.#length) {
      this.inner.style.setProperty("height", `${length * this.rowHeight}px`);
      this.#length = length;
    }
    if (this.following) this.scrollTo(length * this.rowHeight);
    const height = this.element.clientHeight;
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.rowHeight) - BEYOND);
    const last = Math.min(length, Math.ceil((this.element.scrollTop + height) / this.rowHeight) + BEYOND);
    this.#need(Math.max(0, last - first));
    this.#rows.forEach((row, slot) => this.#place(row, first + slot));
  }

  /** @param {HTMLElement} row @param {number} index */
  #place(row, index) {
    row.style.setProperty("transform", `translateY(${index * this.rowHeight}px)`);
    this.#show(row, /** @type {any} */ (this.items)[index], index);
  }

  /** @param {number} count */
  #need(count) {
    while (this.#rows.length < count) {
      const row = this.#make();
      this.#rows.push(row);
      this.inner.append(row);
    }
    for (const row of this.#rows.splice(count)) row.remove();
  }

  /** @param {number} top */
  scrollTo(top) {
    const bounded = Math.max(0, Math.min(top, this.items.length * this.rowHeight - this.element.clientHeight));
    if (Math.abs(this.element.scrollTop - bounded) < 1) return;
    this.element.scrollTop = bounded;
    this.#expected = this.element.scrollTop;
  }

  /** Bring a row into sight. @param {number} index */
  reveal(index) {
    const top = index * this.rowHeight;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.scrollTo(top);
    else if (top + this.rowHeight > scrollTop + clientHeight) this.scrollTo(top + this.rowHeight - clientHeight);
    this.draw();
  }
}
