// A form made of a JSON schema: a field for each value, with its description, its limits and its default.

import { card } from "./components.js";
import { h, put } from "./dom.js";
import { count } from "./format.js";

const ACRONYMS = { llm: "LLM", slm: "SLM", lora: "LoRA" };
const LARGEST = 1e15; // a limit above it is one of the wire, and tells nobody anything

/**
 * A form for the values of the object that `name` calls in `schemas`; `titles` are those of its parts by their path.
 *
 * `node` goes into the page; `fill(values)` puts values into the fields, `read()` returns those that are in them, and
 * `mark(faults)` says beside each field what is wrong, and returns what is to be put above them all.
 */
export class SchemaForm {
  constructor(schemas, name, titles) {
    this.schemas = schemas;
    this.titles = titles;
    this.fields = new Map();
    this.groups = new Map();
    this.node = h("div", { class: "stack" });
    put(this.node, this.#parts(schemas[name], []));
  }

  fill(values) {
    for (const [path, field] of this.fields) {
      const value = path.split(".").reduce((inner, key) => inner?.[key], values);
      field.set(value ?? field.schema.default);
    }
  }

  read() {
    const values = {};
    for (const [path, field] of this.fields) {
      const value = field.value();
      if (value === undefined) continue;
      const keys = path.split(".");
      const inner = keys.slice(0, -1).reduce((outer, key) => (outer[key] ??= {}), values);
      inner[keys.at(-1)] = value;
    }
    return values;
  }

  mark(faults) {
    for (const field of this.fields.values()) field.mark([]);
    for (const said of this.groups.values()) put(said);
    return faults.map(({ where, message }) => {
      const field = nearest(this.fields, where);
      const group = field ? null : nearest(this.groups, where);
      const messages = faults.filter((other) => other.where === where).map((other) => other.message);
      field?.mark(messages);
      if (group) put(group, messages.join(" "));
      const target = field?.control ?? group?.closest(".card");
      return { title: field ? this.#telling(field) : this.#title(where), message, go: target && (() => go(target)) };
    });
  }

  #parts(schema, path) {
    const properties = Object.entries(schema.properties).map(([name, value]) => [[...path, name], this.#resolved(value)]);
    const values = properties.filter(([, value]) => value.type !== "object").sort((one, other) => isLong(one[1]) - isLong(other[1]));
    const objects = properties.filter(([, value]) => value.type === "object");
    const said = h("p", { class: "fault" });
    this.groups.set(path.join("."), said);
    const fields = h("div", { class: "fields" }, values.map(([at, value]) => this.#field(at, value, schema)));
    const nested = objects.map(([at, value]) => this.#parts(value, at));
    if (path.length > 1) return h("details", {}, h("summary", {}, this.#title(path.join("."))), said, fields, nested);
    const about = path.length ? h("p", { class: "quiet small" }, plain(schema.description)) : null;
    const own = card(this.#title(path.join(".")), about, said, fields, path.length ? nested : null);
    return path.length ? own : [own, nested];
  }

  #field(path, schema, parent) {
    const name = path.join(".");
    const title = this.#title(name);
    const field = new Field(name, title, schema, (parent.required ?? []).includes(path.at(-1)));
    this.fields.set(name, field);
    return field.node;
  }

  #resolved(schema) {
    if (schema.$ref) return this.schemas[schema.$ref.split("/").at(-1)];
    const real = schema.anyOf?.find((each) => each.type !== "null");
    return real ? { ...real, description: schema.description, examples: schema.examples } : schema;
  }

  /** A field's title and, where others are called so too, the parts of the form that it stands in. */
  #telling({ name, title }) {
    if ([...this.fields.values()].filter((other) => other.title === title).length === 1) return title;
    const parents = name.split(".").slice(0, -1);
    const parts = parents.map((_, at) => this.#title(parents.slice(0, at + 1).join(".")).split(",")[0]);
    return `${parts.map((part, at) => (at ? begunSmall(part) : part)).join(", ") || this.#title("")}: ${begunSmall(title)}`;
  }

  #title(path) {
    return this.titles[path] ?? path.split(".").at(-1).split("_").map((word) => ACRONYMS[word] ?? word).join(" ")
      .replace(/^./, (letter) => letter.toUpperCase());
  }
}

/** One value: its label, its control, what it is for, and what is wrong with it. */
class Field {
  constructor(name, title, schema, isRequired) {
    Object.assign(this, { name, title, schema });
    const id = `field-${name.replaceAll(".", "-")}`;
    this.control = control(schema, { id, name, autocomplete: "off", spellcheck: "false",
      "aria-required": isRequired ? "true" : null, "aria-describedby": `${id}-help ${id}-fault` });
    this.said = h("p", { class: "fault", id: `${id}-fault` });
    const isBox = schema.type === "boolean";
    const label = h("label", { for: id }, title);
    const help = h("p", { class: "small quiet", id: `${id}-help` },
      [plain(schema.description), limits(schema)].filter(Boolean).join(" "));
    this.node = h("div", { class: isLong(schema) ? "field long" : "field" },
      isBox ? h("div", { class: "row" }, this.control, label) : [label, this.control], help, this.said);
  }

  set(value) {
    if (this.schema.type === "boolean") this.control.checked = Boolean(value);
    else this.control.value = Array.isArray(value) ? value.join(", ") : String(value ?? "");
  }

  /** Return what is in the field; what is no number is returned as it was written, and the coordinator says so. */
  value() {
    const text = this.control.value.trim();
    switch (this.schema.type) {
      case "boolean": return this.control.checked;
      case "array": return text ? text.split(",").map((each) => each.trim()) : undefined;
      case "integer":
      case "number": return text === "" ? undefined : numeric(text);
      default: return this.control.tagName === "TEXTAREA" ? this.control.value : text;
    }
  }

  mark(messages) {
    put(this.said, messages.join(" "));
    if (messages.length) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }
}

function control(schema, attributes) {
  if (schema.enum) return h("select", attributes, schema.enum.map((value) => h("option", {}, value)));
  if (schema.type === "boolean") return h("input", { ...attributes, type: "checkbox" });
  if (isLong(schema)) return h("textarea", { ...attributes, rows: 3 });
  const isNumber = schema.type === "integer" || schema.type === "number";
  return h("input", { ...attributes, type: "text", inputmode: isNumber ? "decimal" : null });
}

function isLong(schema) {
  return schema.type === "string" && schema.maxLength > 1500;
}

function numeric(text) {
  const value = Number(text);
  return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value)) ? value : text;
}

function limits(schema) {
  if (schema.type === "array") return "Separated by commas.";
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  if (low === undefined) return "";
  const from = schema.minimum === undefined ? `above ${count(low)}` : count(low);
  if (high === undefined || high > LARGEST) return sentence(`${from} or more.`);
  return sentence(`${from} to ${schema.maximum === undefined ? "below " : ""}${count(high)}.`);
}

function begunSmall(text) {
  return text.replace(/^./, (letter) => letter.toLowerCase());
}

function sentence(text) {
  return text.replace(/^./, (letter) => letter.toUpperCase());
}

/** A docstring without its marks, and without where the code's readers find more. */
function plain(text = "") {
  return text.replaceAll("``", "").replace(/ \((docs|design)[^)]*\)/g, "").replace(/\s+/g, " ");
}

/** Return what stands at a path or, where nothing does, at the longest beginning of it. */
function nearest(map, where) {
  for (let path = where; ; path = path.slice(0, path.lastIndexOf("."))) {
    if (map.has(path)) return map.get(path);
    if (!path.includes(".")) return null;
  }
}

function go(target) {
  for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  if (!target.matches("input, select, textarea")) target.tabIndex = -1;
  target.focus();
}
