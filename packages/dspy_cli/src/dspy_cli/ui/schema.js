/** JSON Schema -> what a form consists of, and JSON values by path. No DOM. */

/** @typedef {(string | number)[]} Path */

/**
 * @typedef {object} Field
 * @property {"text" | "choice" | "integer" | "number" | "boolean" | "date" | "datetime" | "time" | "code" | "image" | "audio" | "file" | "history" | "list" | "object" | "union" | "json"} kind
 * @property {string} title
 * @property {string} description
 * @property {boolean} required
 * @property {boolean} nullable null is a value of it
 * @property {any} standard its default, undefined if there is none
 * @property {Record<string, any>} schema with references followed
 * @property {any[]} [choices] of a choice
 * @property {boolean} [wrapped] an image that is an object with a `url`
 * @property {Record<string, Field>} [fields] of an object; made when first asked for, as a schema may contain itself
 * @property {Field} [items] of a list
 * @property {Field[]} [options] of a union
 */

const MAX_REFERENCES = 32;

/** The form of `schema`, which describes an object. @param {Record<string, any>} schema @returns {Field} */
export function form(schema) {
  return field(schema, schema, { title: String(schema.title ?? ""), required: true });
}

/** @param {any} schema @param {any} root @param {{ title: string, required: boolean }} about @returns {Field} */
function field(schema, root, about) {
  const { nullable, plain } = withoutNull(followed(schema, root), root);
  const kind = kindOf(plain);
  /** @type {Field} */
  const made = {
    kind, nullable, schema: plain, required: about.required,
    title: String(plain.title && !plain.$named ? plain.title : about.title),
    description: String(plain.description ?? ""),
    standard: plain.default,
  };
  return Object.defineProperties(made, lazily(PARTS[kind]?.(plain, root) ?? {}));
}

/** Values that are made when first asked for. @param {Record<string, () => any>} parts */
function lazily(parts) {
  return Object.fromEntries(
    Object.entries(parts).map(([name, make]) => {
      /** @type {any} */ let value;
      return [name, { enumerable: true, get: () => (value ??= make()) }];
    }),
  );
}

/** @type {Record<string, (schema: any, root: any) => Record<string, () => any>>} */
const PARTS = {
  choice: (schema) => ({ choices: () => ("const" in schema ? [schema.const] : schema.enum) }),
  image: (schema) => ({ wrapped: () => schema.type === "object" && Boolean(schema.properties?.url) }),
  list: (schema, root) => ({ items: () => field(schema.items ?? {}, root, { title: "", required: true }) }),
  object: (schema, root) => ({
    fields() {
      const required = new Set(schema.required ?? []);
      const entries = Object.entries(schema.properties ?? {});
      return Object.fromEntries(
        entries.map(([name, inner]) => [name, field(inner, root, { title: titled(name), required: required.has(name) })]),
      );
    },
  }),
  union: (schema, root) => ({
    options: () => variants(schema).map((/** @type {any} */ each) => field(each, root, { title: "", required: true })),
  }),
};

/** @param {any} schema */
const variants = (schema) => schema.anyOf ?? schema.oneOf ?? [];

/** `schema` with its references and single `allOf` followed; what stands beside a reference wins. */
function followed(/** @type {any} */ schema, /** @type {any} */ root) {
  let { ...plain } = schema === true || schema == null ? {} : schema;
  for (let turn = 0; turn < MAX_REFERENCES; turn += 1) {
    if (plain.$ref) {
      const { $ref, ...beside } = plain;
      plain = { ...lookup(root, $ref), $named: !beside.title, ...beside };
    } else if (plain.allOf?.length === 1) {
      const { allOf, ...beside } = plain;
      plain = { ...allOf[0], ...beside };
    } else return plain;
  }
  return {};
}

/** @param {any} root @param {string} reference `#/$defs/Name` */
function lookup(root, reference) {
  return steps(reference).reduce((at, step) => at?.[step], root) ?? {};
}

/** `anyOf` with null, as Optional is written, without it. */
function withoutNull(/** @type {any} */ schema, /** @type {any} */ root) {
  const all = variants(schema);
  if (!all.length) return { nullable: schema.type === "null" || [schema.type].flat().includes("null"), plain: withoutNullType(schema) };
  const rest = all.filter((/** @type {any} */ each) => each.type !== "null");
  const nullable = rest.length < all.length;
  const { anyOf: _, oneOf: __, ...beside } = schema;
  if (rest.length === 1) return { nullable, plain: { ...followed(rest[0], root), ...beside } };
  return { nullable, plain: { ...beside, anyOf: rest } };
}

function withoutNullType(/** @type {any} */ schema) {
  if (!Array.isArray(schema.type)) return schema;
  const types = schema.type.filter((/** @type {string} */ type) => type !== "null");
  return { ...schema, type: types.length === 1 ? types[0] : types };
}

/** @type {Record<string, Field["kind"]>} */
const FORMATS = {
  __proto__: /** @type {any} */ (null),
  image: "image", audio: "audio", file: "file", code: "code", history: "history", date: "date", "date-time": "datetime", time: "time",
};

/** @param {any} schema @returns {Field["kind"]} */
function kindOf(schema) {
  if (schema.enum || "const" in schema) return "choice";
  if (FORMATS[schema.format]) return FORMATS[schema.format];
  if (isHistory(schema)) return "history";
  if (variants(schema).length) return "union";
  // DSPy's own types are a string or an object: a form writes the string.
  switch (Array.isArray(schema.type) && schema.type.includes("string") ? "string" : schema.type) {
    case "string": return "text";
    case "integer": return "integer";
    case "number": return "number";
    case "boolean": return "boolean";
    case "array": return schema.prefixItems ? "json" : "list";
    case "object": return schema.properties ? "object" : "json";
    default: return "json";
  }
}

const isHistory = (/** @type {any} */ schema) =>
  schema.title === "History" && schema.type === "object" && schema.properties?.messages?.type === "array";

/** @param {string} name */
export const titled = (name) => {
  const words = name.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
};

/**
 * What a form begins with. `undefined` is "not given": it is left out of the body.
 * @param {Field} each @returns {any}
 */
export function initial(each) {
  if (each.standard !== undefined) return each.standard === null ? undefined : structuredClone(each.standard);
  return each.required && !each.nullable ? blank(each) : undefined;
}

/** What a value begins with that is certainly given, like a new item of a list. @param {Field} each @returns {any} */
export function blank(each) {
  switch (each.kind) {
    case "object": return Object.fromEntries(Object.entries(each.fields ?? {}).map(([name, inner]) => [name, initial(inner)]));
    case "list": return [];
    case "history": return { messages: [] };
    case "boolean": return false;
    case "choice": return each.choices?.length === 1 ? each.choices[0] : undefined;
    case "union": return each.options?.[0] && blank(each.options[0]);
    default: return undefined;
  }
}

/** The index of the option of a union that `value` fits best. @param {Field} union @param {any} value */
export function fitting(union, value) {
  const found = (union.options ?? []).findIndex((option) => fits(option, value));
  return Math.max(0, found);
}

/** @param {Field} each @param {any} value @returns {boolean} */
function fits(each, value) {
  if (value === null || value === undefined) return each.nullable;
  switch (each.kind) {
    case "choice": return each.choices?.includes(value) ?? false;
    case "integer": return Number.isInteger(value);
    case "number": return typeof value === "number";
    case "boolean": return typeof value === "boolean";
    case "list": return Array.isArray(value);
    case "object":
    case "history": return isObject(value) && Object.entries(each.fields ?? {}).every(([name, inner]) => !inner.required || name in value);
    case "json": return true;
    default: return typeof value === "string";
  }
}

const isObject = (/** @type {unknown} */ value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Names of inputs and outputs, for the turns of a chat. @param {any} inputs @param {any} outputs schemas */
export function turnFields(inputs, outputs) {
  const given = Object.entries(form(inputs).fields ?? {}).filter(([, each]) => each.kind !== "history").map(([name]) => name);
  return [...new Set([...given, ...Object.keys(outputs?.properties ?? {})])];
}

// --- values by path ---

/** @param {any} value @param {Path} path */
export const at = (value, path) => path.reduce((inner, key) => inner?.[key], value);

/** Put `value` at `path`, making what is on the way. @param {any} root @param {Path} path @param {any} value */
export function put(root, path, value) {
  let inner = root;
  path.slice(0, -1).forEach((key, index) => {
    inner[key] ??= typeof path[index + 1] === "number" ? [] : {};
    inner = inner[key];
  });
  inner[path[path.length - 1]] = value;
}

/** A copy without what was not given. @param {any} value @returns {any} */
export function given(value) {
  if (Array.isArray(value)) return value.map((item) => (item === undefined ? null : given(item)));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined).map(([key, item]) => [key, given(item)]));
}

/** @param {Path} path */
export const pointer = (path) => path.map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");

/** The steps of a JSON pointer, also of one in a URI fragment. @param {string} text @returns {string[]} */
export function steps(text) {
  const plain = text.startsWith("#") ? decoded(text.slice(1)) : text;
  return plain.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

const decoded = (/** @type {string} */ text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/**
 * The pointer among `known` nearest to where an error is: itself, or what is around it. A server may name
 * variants of a union on the way, which the form does not have; null when nothing is near.
 * @param {string} text @param {(pointer: string) => boolean} known
 */
export function nearest(text, known) {
  const path = steps(text);
  for (let length = path.length; length > 0; length -= 1) {
    const found = pointer(path.slice(0, length));
    if (known(found)) return found;
  }
  return null;
}
