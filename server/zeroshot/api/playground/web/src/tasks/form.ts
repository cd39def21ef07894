/** A task's JSON Schema -> form fields, and what was typed -> the request body. */

import type { Property, TaskDetails } from "../api/tasks";

export type Control = "text" | "line" | "list" | "choice" | "number" | "integer" | "switch";
/** What a control holds: the raw text for all but switches, so that half-typed numbers can stand there. */
export type Value = string | boolean;
export type Values = Record<string, Value>;

export interface FormField {
  name: string;
  title: string;
  description: string;
  control: Control;
  isRequired: boolean;
  /** An input of the prompt, rather than a setting of the run. */
  isInput: boolean;
  defaultText: string;
  options: string[];
  minimum?: number;
  maximum?: number;
  maxLength?: number;
}

const HIDDEN = new Set(["explain", "stream"]); // the page always asks for them
const SHORT = 80;

export function fieldsOf(task: TaskDetails): FormField[] {
  const { properties, required = [] } = task.request_schema;
  return Object.entries(properties)
    .filter(([name]) => !HIDDEN.has(name))
    .map(([name, property]) => toField(name, property, required.includes(name), name in task.prompt_file.inputs));
}

function toField(name: string, property: Property, isRequired: boolean, isInput: boolean): FormField {
  // `integer | null` is an integer that may be left out.
  const shape = { ...property, ...property.anyOf?.find((member) => member.type !== "null") };
  const options = shape.enum?.map(String) ?? (shape.const === undefined ? [] : [String(shape.const)]);
  return {
    name,
    title: property.title ?? name,
    description: property.description ?? "",
    control: controlFor(shape, options),
    isRequired,
    isInput,
    defaultText: asText(property.default),
    options,
    minimum: shape.minimum,
    maximum: shape.maximum,
    maxLength: shape.maxLength,
  };
}

function controlFor(shape: Property, options: string[]): Control {
  if (options.length) return "choice";
  if (shape.type === "boolean") return "switch";
  if (shape.type === "array") return "list";
  if (shape.type === "integer" || shape.type === "number") return shape.type;
  return (shape.maxLength ?? Infinity) <= SHORT ? "line" : "text";
}

/** What a control shows for a JSON value. A list has one item a line. */
export function asText(value: unknown): string {
  if (value === undefined || value === null) return "";
  return Array.isArray(value) ? value.map(String).join("\n") : String(value);
}

/** What a form starts with: the example of the prompt file, else the defaults. */
export function initialValues(task: TaskDetails): Values {
  return Object.fromEntries(
    fieldsOf(task).map((field) => {
      const example = task.example?.[field.name] ?? task.request_schema.properties[field.name]?.examples?.[0];
      if (field.control === "switch") return [field.name, (asText(example) || field.defaultText) === "true"];
      return [field.name, example === undefined ? field.defaultText : asText(example)];
    }),
  );
}

/** The request body. What equals its default is left out, so that a snippet shows only what was chosen. */
export function toBody(fields: FormField[], values: Values): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const field of fields) {
    const value = values[field.name] ?? "";
    if (String(value) === field.defaultText && !field.isRequired) continue;
    if (field.control === "switch") body[field.name] = value === true;
    else if (field.control === "list") body[field.name] = itemsOf(value);
    else if (field.control === "number" || field.control === "integer") {
      if (String(value).trim() !== "") body[field.name] = numberOrText(String(value));
    } else body[field.name] = value;
  }
  return body;
}

/** A list's items: the lines of its control that are not empty. */
export function itemsOf(value: Value): string[] {
  return String(value).split("\n").filter((line) => line !== "");
}

/** What is no number goes to the server as it is: its answer names the field. */
function numberOrText(text: string): number | string {
  const number = Number(text);
  return Number.isFinite(number) ? number : text;
}
