/** A form made of a JSON Schema: each kind of field, lists and objects inside, the same value as raw JSON. */

import { fill, h, icon, iconButton, say } from "./dom.js";
import { at, blank, fitting, form, given, nearest, pointer, put, titled } from "./schema.js";
/** @import { Field, Path } from "./schema.js" */

const MAX_FILE_BYTES = 20_000_000;
let counter = 0;

export class Form {
  /**
   * @param {any} schema @param {object} how
   * @param {any} [how.draft] what was filled in before
   * @param {string[]} [how.turns] names of the fields of a chat's turns
   * @param {(draft: any) => void} how.onChange
   */
  constructor(schema, { draft, turns = [], onChange }) {
    this.root = form(schema);
    this.turns = turns;
    this.draft = draft ?? blank(this.root);
    this.#onChange = onChange;
    this.fields = h("div", { class: "fields" });
    this.raw = h("textarea", { class: "mono raw-json", rows: "14", spellcheck: "false", "aria-label": "Inputs as JSON", oninput: () => this.#read() });
    this.rawError = h("p", { class: "field-error", role: "alert" });
    this.modes = ["Form", "JSON"].map((label) => h("button", { type: "button", "aria-pressed": String(label === "Form"), onclick: () => this.mode(label === "JSON") }, label));
    this.rawPane = h("div", { class: "raw-pane", hidden: true }, this.raw, this.rawError);
    this.general = h("div", { class: "general-errors", role: "alert" });
    this.element = h("div", { class: "form" }, this.general, this.fields, this.rawPane);
    this.switch = h("div", { class: "segmented", role: "group", "aria-label": "How to fill in" }, this.modes);
    this.#render();
  }

  #onChange;
  /** @type {Map<string, { box: HTMLElement, error: HTMLElement, control: Element | null }>} */ #places = new Map();

  /** What to send. */
  get body() {
    return given(this.draft);
  }

  /** Why it cannot be sent as it is, or "". */
  get problem() {
    return this.rawPane.hidden ? "" : this.rawError.textContent ?? "";
  }

  /** @param {any} draft */
  set(draft) {
    this.draft = draft;
    this.#render();
    this.#write();
    this.#onChange(draft);
  }

  /** @param {boolean} raw */
  mode(raw) {
    if (!raw && this.problem) return this.raw.focus();
    this.rawPane.hidden = !raw;
    this.fields.hidden = raw;
    this.modes.forEach((button, index) => button.setAttribute("aria-pressed", String((index === 1) === raw)));
    if (raw) this.#write();
    else this.#render();
  }

  #write() {
    this.raw.value = JSON.stringify(this.body, null, 2);
    say(this.rawError, "");
  }

  #read() {
    try {
      const read = JSON.parse(this.raw.value);
      if (typeof read !== "object" || read === null || Array.isArray(read)) throw new Error("The inputs are one object, { … }.");
      this.draft = read;
      say(this.rawError, "");
      this.#onChange(read);
    } catch (error) {
      say(this.rawError, `Not JSON yet: ${/** @type {Error} */ (error).message}`);
    }
  }

  #render() {
    this.#places.clear();
    fill(this.fields, Object.entries(this.root.fields ?? {}).map(([name, each]) => this.#field(each, [name], name)));
    if (!this.fields.childElementCount) fill(this.fields, h("p", { class: "muted" }, "This program takes no inputs."));
  }

  /** Say at the fields what the server did not take. @param {any[]} errors */
  errors(errors) {
    this.clear();
    const rest = errors.filter((error) => !this.#mark(String(error.pointer ?? ""), String(error.detail ?? error.message ?? "not valid")));
    fill(this.general, rest.map((error) => h("p", { class: "field-error" }, `${error.pointer ?? error.parameter ?? ""} ${error.detail ?? error.message ?? "not valid"}`.trim())));
    const first = this.element.querySelector("[aria-invalid=true]");
    if (first instanceof HTMLElement) first.focus();
  }

  clear() {
    fill(this.general);
    for (const { box, error, control } of this.#places.values()) {
      box.classList.remove("invalid");
      say(error, "");
      control?.removeAttribute("aria-invalid");
    }
  }

  /** @param {string} where @param {string} message */
  #mark(where, message) {
    const found = nearest(where, (known) => this.#places.has(known));
    const place = found === null || this.fields.hidden ? undefined : this.#places.get(found);
    if (!place) return false;
    place.box.classList.add("invalid");
    say(place.error, place.error.textContent ? `${place.error.textContent} ${message}` : message);
    place.control?.setAttribute("aria-invalid", "true");
    for (let box = place.box.parentElement?.closest("details"); box; box = box.parentElement?.closest("details")) box.open = true;
    return true;
  }

  // --- fields ---

  /** @param {Path} path @param {any} value */
  #put(path, value) {
    put(this.draft, path, value);
    this.#onChange(this.draft);
  }

  /**
   * A field with its name, its description and a place for errors.
   * @param {Field} field @param {Path} path @param {string} name @returns {HTMLElement}
   */
  #field(field, path, name) {
    const id = `field-${++counter}`;
    const error = h("p", { class: "field-error", id: `${id}-error`, role: "alert" });
    const control = this.#control(field, path, id);
    const label = field.title || titled(name);
    const group = ["object", "list", "history", "union", "image", "audio", "file"].includes(field.kind);
    const about = [field.description && h("p", { class: "field-about", id: `${id}-about` }, field.description), error];
    const mark = !field.required || field.nullable ? h("span", { class: "optional" }, "optional") : null;
    const body = group
      ? h("fieldset", { class: `field field-${field.kind}` }, h("legend", null, label, mark), about[0], control, error)
      : field.kind === "boolean"
        ? h("div", { class: "field field-boolean" }, h("label", { class: "check", for: id }, control, h("span", null, label)), about)
        : h("div", { class: `field field-${field.kind}` }, h("label", { for: id }, label, mark), control, about);
    const input = control.matches("input, textarea, select") ? control : control.querySelector("input, textarea, select");
    input?.setAttribute("aria-describedby", `${field.description ? `${id}-about ` : ""}${id}-error`);
    body.dataset.pointer = pointer(path);
    this.#places.set(pointer(path), { box: body, error, control: input });
    return body;
  }

  /** @param {Field} field @param {Path} path @param {string} id @returns {HTMLElement} */
  #control(field, path, id) {
    return CONTROLS[field.kind](this.#context(field, path, id));
  }

  /** @param {Field} field @param {Path} path @param {string} id */
  #context(field, path, id) {
    return {
      field, path, id, turns: this.turns,
      value: at(this.draft, path),
      put: (/** @type {any} */ value, where = path) => this.#put(where, value),
      read: (where = path) => at(this.draft, where),
      inner: (/** @type {Field} */ each, /** @type {Path} */ where, /** @type {string} */ name) => this.#field(each, where, name),
      bare: (/** @type {Field} */ each, /** @type {Path} */ where, /** @type {string} */ name) => this.#control(each, where, name),
      forget: (/** @type {Path} */ where) => this.#forget(pointer(where)),
    };
  }

  /** @param {string} prefix */
  #forget(prefix) {
    for (const key of this.#places.keys()) if (key.startsWith(`${prefix}/`)) this.#places.delete(key);
  }
}

/** @typedef {{ field: Field, path: Path, id: string, turns: string[], value: any, put: (value: any, where?: Path) => void, read: (where?: Path) => any, inner: (field: Field, where: Path, name: string) => HTMLElement, bare: (field: Field, where: Path, id: string) => HTMLElement, forget: (where: Path) => void }} Context */

/** What each kind is filled in with. @type {Record<Field["kind"], (context: Context) => HTMLElement>} */
const CONTROLS = {
  text: (context) => textArea(context, {}),
  code: (context) => textArea(context, { class: "mono grows", spellcheck: "false", rows: "4" }),
  integer: (context) => numberInput(context, "1"),
  number: (context) => numberInput(context, "any"),
  boolean({ field, id, value, put }) {
    if (field.nullable || (!field.required && field.standard === undefined)) return choice({ id, value, put, choices: [true, false], optional: true });
    return h("input", { type: "checkbox", id, checked: value === true, onchange: (/** @type {any} */ event) => put(event.target.checked) });
  },
  choice({ field, id, value, put }) {
    return choice({ id, value, put, choices: field.choices ?? [], optional: field.nullable || value === undefined });
  },
  date: (context) => dateInput(context, "date"),
  time: (context) => dateInput(context, "time"),
  datetime: (context) => dateInput(context, "datetime-local"),
  image: (context) => fileInput(context, "image/*"),
  audio: (context) => fileInput(context, "audio/*"),
  file: (context) => fileInput(context, "*/*"),
  history: chatEditor,
  list: listEditor,
  object: objectEditor,
  union: unionEditor,
  json: jsonArea,
};

/** @param {Context} context @param {Record<string, any>} about */
function textArea({ field, id, value, put }, about) {
  const { minLength, maxLength, examples } = field.schema;
  return h("textarea", {
    id, rows: "1", class: "grows", maxlength: maxLength, minlength: minLength, placeholder: examples?.[0], value: value ?? "", ...about,
    oninput: (/** @type {any} */ event) => put(event.target.value === "" && (field.nullable || !field.required) && field.standard === undefined ? undefined : event.target.value),
  });
}

/** @param {Context} context @param {string} step */
function numberInput({ field, id, value, put }, step) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = field.schema;
  const least = minimum ?? (step === "1" && exclusiveMinimum !== undefined ? exclusiveMinimum + 1 : exclusiveMinimum);
  const most = maximum ?? (step === "1" && exclusiveMaximum !== undefined ? exclusiveMaximum - 1 : exclusiveMaximum);
  const range = least !== undefined && most !== undefined ? `${least} to ${most}` : least !== undefined ? `at least ${least}` : most !== undefined ? `at most ${most}` : undefined;
  return h("input", { type: "number", id, step: multipleOf ?? step, min: least, max: most, placeholder: range, title: range, value: value ?? "",
    oninput: (/** @type {any} */ event) => put(event.target.value === "" ? undefined : event.target.valueAsNumber) });
}

/** @param {{ id: string, value: any, put: (value: any) => void, choices: any[], optional: boolean }} about */
function choice({ id, value, put, choices, optional }) {
  const selected = choices.findIndex((each) => each === value);
  const select = h("select", { id, onchange: () => put(select.value === "" ? undefined : choices[Number(select.value)]) },
    (optional || selected < 0) && h("option", { value: "" }, optional ? "Not given" : "Choose…"),
    choices.map((each, index) => h("option", { value: String(index) }, each === true ? "Yes" : each === false ? "No" : String(each))));
  select.value = selected < 0 ? "" : String(selected);
  return select;
}

/** @param {Context} context @param {"date" | "time" | "datetime-local"} type */
function dateInput({ id, value, put }, type) {
  const shown = type === "datetime-local" ? String(value ?? "").slice(0, 16) : value ?? "";
  return h("input", { type, id, value: shown, onchange: (/** @type {any} */ event) => put(event.target.value || undefined) });
}

/** A file as a `data:` URI, or the address of one. @param {Context} context @param {string} accept */
function fileInput({ field, id, value, put }, accept) {
  const wrap = (/** @type {string | undefined} */ uri) => put(uri && field.wrapped ? { url: uri } : uri || undefined);
  const preview = h("div", { class: "preview" });
  const address = h("input", { type: "url", id, placeholder: accept === "image/*" ? "https://… or paste a picture" : "data: URI", "aria-label": `${field.title || "File"}: address`, oninput: () => show(address.value.trim(), true) });
  const chooser = h("input", { type: "file", accept, class: "visually-hidden", "aria-label": `${field.title || "File"}: choose a file`, onchange: () => read(chooser.files?.[0]) });
  const drop = iconButton("Remove", "close", () => show("", true));
  const show = (/** @type {string} */ uri, changed = false) => {
    const inline = uri.startsWith("data:");
    fill(preview, inline && (uri.startsWith("data:image/") ? h("img", { src: uri, alt: "Chosen picture" }) : h("span", { class: "mono" }, `${uri.slice(0, 40)}…`)), uri && drop);
    if (address.value !== uri && !inline) address.value = uri;
    if (inline) address.value = "";
    if (changed) wrap(uri);
  };
  const read = (/** @type {File | undefined | null} */ file) => {
    if (!file) return;
    if (file.size > MAX_FILE_BYTES) return fill(preview, h("p", { class: "field-error" }, "The file is larger than 20 MB."));
    const reader = new FileReader();
    reader.onload = () => show(String(reader.result), true);
    reader.readAsDataURL(file);
  };
  const box = h("div", { class: "file-box",
    onpaste: (/** @type {ClipboardEvent} */ event) => read(event.clipboardData?.files[0]),
    ondragover: (/** @type {DragEvent} */ event) => event.preventDefault(),
    ondrop: (/** @type {DragEvent} */ event) => { event.preventDefault(); read(event.dataTransfer?.files[0]); } },
    h("label", { class: "button" }, icon("upload"), "Choose a file", chooser), address, preview);
  show(typeof value === "object" && value ? String(value.url ?? "") : String(value ?? ""));
  return box;
}

/** @param {Context} context */
function listEditor(context) {
  const { field, path, put, read, inner, forget } = context;
  const items = /** @type {Field} */ (field.items);
  const { minItems = 0, maxItems = Infinity } = field.schema;
  const element = h("div", { class: "list" });
  const draw = () => {
    forget(path);
    const values = Array.isArray(read()) ? read() : [];
    const add = h("button", { type: "button", class: "quiet add", disabled: values.length >= maxItems, onclick: () => { put([...values, items.kind === "text" ? "" : blank(items)]); draw(); /** @type {HTMLElement | null} */ (element.querySelector(".item:last-of-type :is(textarea, input, select)"))?.focus(); } }, icon("plus"), "Add");
    fill(element, values.map((/** @type {any} */ _, /** @type {number} */ index) => h("div", { class: "item" },
      inner(items, [...path, index], `${index + 1}`),
      iconButton(`Remove item ${index + 1}`, "close", () => { put(values.filter((/** @type {any} */ __, /** @type {number} */ each) => each !== index)); draw(); }, { disabled: values.length <= minItems }))), add);
  };
  draw();
  return element;
}

/** @param {Context} context */
function objectEditor(context) {
  const { field, path, put, read, inner, forget } = context;
  const element = h("div", { class: "object" });
  const draw = () => {
    forget(path);
    if (read() === undefined || read() === null) {
      return fill(element, h("button", { type: "button", class: "quiet add", onclick: () => { put(blank(field)); draw(); } }, icon("plus"), `Give ${field.title || "it"}`));
    }
    fill(element, Object.entries(field.fields ?? {}).map(([name, each]) => inner(each, [...path, name], name)),
      (field.nullable || !field.required) && h("button", { type: "button", class: "quiet", onclick: () => { put(undefined); draw(); } }, "Leave it out"));
  };
  draw();
  return element;
}

/** @param {Context} context */
function unionEditor({ field, path, id, value, put, bare, forget }) {
  const options = field.options ?? [];
  const body = h("div", { class: "union-body" });
  let chosen = value === undefined ? (field.nullable || !field.required ? -1 : 0) : fitting(field, value);
  const draw = () => {
    forget(path);
    fill(body, chosen >= 0 && bare(options[chosen], path, `${id}-value`));
    body.querySelector(`#${id}-value`)?.setAttribute("aria-label", field.title || "Value");
  };
  const select = h("select", { class: "union-kind", "aria-label": `Kind of ${field.title || "value"}`, onchange: () => {
    chosen = Number(select.value);
    put(chosen < 0 ? undefined : blank(options[chosen]));
    draw();
  } }, (field.nullable || !field.required) && h("option", { value: "-1" }, "Not given"), options.map((each, index) => h("option", { value: String(index) }, each.schema.title || KINDS[each.kind] || each.kind)));
  select.value = String(chosen);
  draw();
  return h("div", { class: "union" }, select, body);
}

/** @type {Record<string, string>} */
const KINDS = { text: "Text", integer: "Whole number", number: "Number", boolean: "Yes or no", list: "List", object: "Object", json: "JSON", choice: "Choice", date: "Date", datetime: "Date and time" };

/** @param {Context} context */
function jsonArea({ id, value, put }) {
  const error = h("p", { class: "field-error" });
  const area = h("textarea", { id, class: "mono grows", rows: "2", spellcheck: "false", placeholder: "JSON", value: value === undefined ? "" : JSON.stringify(value, null, 2), oninput: () => {
    try {
      put(area.value.trim() ? JSON.parse(area.value) : undefined);
      say(error, "");
    } catch {
      say(error, "Not JSON yet.");
    }
  } });
  return h("div", { class: "json-area" }, area, error);
}

/** A chat's earlier turns, each with the program's own inputs and outputs; or as JSON. @param {Context} context */
function chatEditor({ turns, id, put, read }) {
  const element = h("div", { class: "chat" });
  let raw = false;
  const messages = () => (Array.isArray(read()?.messages) ? read().messages : []);
  const draw = () => {
    const all = messages();
    const write = (/** @type {any[]} */ next) => { put(next.length ? { messages: next } : { messages: [] }); draw(); };
    const swap = h("button", { type: "button", class: "quiet", onclick: () => { raw = !raw; draw(); } }, raw ? "As turns" : "As JSON");
    if (raw) return fill(element, h("label", { class: "visually-hidden", for: id }, "As JSON"), jsonArea(/** @type {any} */ ({ id, value: read(), put })), swap);
    const names = (/** @type {any} */ turn) => [...new Set([...turns, ...Object.keys(turn ?? {})])];
    fill(element, all.map((/** @type {any} */ turn, /** @type {number} */ index) => h("div", { class: "turn", role: "group", "aria-label": `Turn ${index + 1}` },
      h("div", { class: "label-line" }, h("span", { class: "label" }, `Turn ${index + 1}`), h("span", { class: "spring" }), iconButton(`Remove turn ${index + 1}`, "close", () => write(all.filter((/** @type {any} */ _, /** @type {number} */ each) => each !== index)))),
      names(turn).map((name) => {
        const inner = `${id}-${index}-${name}`;
        return h("div", { class: "turn-field" }, h("label", { for: inner }, titled(name)), h("textarea", { id: inner, rows: "1", class: "grows", value: typeof turn?.[name] === "string" ? turn[name] : turn?.[name] === undefined ? "" : JSON.stringify(turn[name]),
          oninput: (/** @type {any} */ event) => { const next = { ...messages()[index] }; if (event.target.value) next[name] = event.target.value; else delete next[name]; put({ messages: messages().with(index, next) }); } }));
      }))),
      h("div", { class: "chat-actions" }, h("button", { type: "button", class: "quiet add", onclick: () => write([...all, {}]) }, icon("plus"), "Add a turn"), swap));
  };
  draw();
  return element;
}

