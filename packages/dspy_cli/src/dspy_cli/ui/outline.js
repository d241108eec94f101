/** A call tree -> the rows that are shown: what is folded, what a filter leaves. No DOM. */

import { contains } from "./format.js";
/** @import { Call, Node, Run } from "./fold.js" */

/** The kinds that a filter names, and what belongs to each. */
export const GROUPS = {
  module: ["module", "evaluate", "compile"],
  lm: ["lm"],
  tool: ["tool", "interpreter", "retriever"],
  adapter: ["adapter_format", "adapter_parse"],
  trace: ["trace"],
  event: ["event", "status", "gap"],
};

const GROUP_OF = new Map(Object.entries(GROUPS).flatMap(([group, kinds]) => kinds.map((kind) => [kind, group])));

/** @param {Node} node */
export const groupOf = (node) => GROUP_OF.get(node.kind) ?? "event";

/**
 * @typedef {object} View
 * @property {Set<string>} hidden groups that are filtered out; what is inside them moves up
 * @property {Set<string>} closed ids of rows that are folded
 * @property {((node: Node) => boolean) | null} match null: everything; a row is kept for what is inside it
 */

/** @typedef {{ node: Node, depth: number, open: boolean | null, position: number, size: number }} Row */

/**
 * The rows to show, in order. `open` is null for a row with nothing inside.
 * @param {Run} run @param {View} view @returns {Row[]}
 */
export function rows(run, view) {
  const kept = view.match ? matching(run.roots, view.match) : null;
  /** @type {Row[]} */ const out = [];
  const shown = (/** @type {Node} */ node) => kept === null || kept.has(node);
  const visit = (/** @type {Node[]} */ nodes, /** @type {number} */ depth) => {
    const level = kept === null && view.hidden.size === 0 ? nodes : lifted(nodes, view.hidden, shown);
    level.forEach((node, index) => {
      const inside = node.is === "call" && hasRows(node, view.hidden, shown);
      const open = inside ? kept !== null || !view.closed.has(node.id) : null;
      out.push({ node, depth, open, position: index + 1, size: level.length });
      if (open && node.is === "call") visit(node.children, depth + 1);
    });
  };
  visit(run.roots, 0);
  return out;
}

/** @param {Node[]} nodes @param {Set<string>} hidden @param {(node: Node) => boolean} shown @returns {Node[]} */
function lifted(nodes, hidden, shown) {
  /** @type {Node[]} */ const out = [];
  for (const node of nodes) {
    if (!shown(node)) continue;
    if (!hidden.has(groupOf(node))) out.push(node);
    else if (node.is === "call") out.push(...lifted(node.children, hidden, shown));
  }
  return out;
}

/** @param {Call} call @param {Set<string>} hidden @param {(node: Node) => boolean} shown @returns {boolean} */
function hasRows(call, hidden, shown) {
  return call.children.some(
    (node) => shown(node) && (!hidden.has(groupOf(node)) || (node.is === "call" && hasRows(node, hidden, shown))),
  );
}

/** Nodes that match, and those around them. @param {Node[]} nodes @param {(node: Node) => boolean} match */
function matching(nodes, match) {
  /** @type {Set<Node>} */ const kept = new Set();
  const visit = (/** @type {Node} */ node) => {
    let keep = match(node);
    if (node.is === "call") for (const child of node.children) keep = visit(child) || keep;
    if (keep) kept.add(node);
    return keep;
  };
  nodes.forEach(visit);
  return kept;
}

/** Whether a node has `needle` (lower case) anywhere. @param {Node} node @param {string} needle */
export function says(node, needle) {
  if (node.name.toLowerCase().includes(needle)) return true;
  if (node.is === "note") return contains(node.event.data, needle);
  if (node.operation.toLowerCase().includes(needle) || node.module.toLowerCase().includes(needle)) return true;
  for (const field of node.fields.values()) if (field.text.toLowerCase().includes(needle)) return true;
  return contains(node.given, needle) || contains(node.result, needle);
}

/**
 * Remembers what matched while nodes do not change, so that a search costs its words once, not each frame.
 * @param {string} needle lower case
 * @returns {(node: Node) => boolean}
 */
export function remembered(needle) {
  /** @type {WeakMap<Node, { version: number, matched: boolean }>} */ const known = new WeakMap();
  return (node) => {
    const before = known.get(node);
    if (before && (before.matched || before.version === node.version)) return before.matched;
    const matched = says(node, needle);
    known.set(node, { version: node.version, matched });
    return matched;
  };
}
