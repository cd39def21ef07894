/** The prompt as the page shows it: the template before a run, what the server says it was after one. */

import type { Explanation, InputDeclaration, PromptFile } from "../api/tasks";
import { itemsOf, type Value, type Values } from "./form";

export interface Part {
  /** The input the text came from; null for the template's own text. */
  field: string | null;
  text: string;
}

/** A stretch of the prompt that is of one part, and wholly from the cache or wholly not. */
export interface CachedPart extends Part {
  isCached: boolean;
}

const PIECE = /\{\{|\}\}|\{([a-z][a-z0-9_]*)\}/g;

/** A template's literal texts and the places of its fields, whose `text` is their name. */
export function templateParts(template: string): Part[] {
  const parts: Part[] = [];
  let literal = "";
  let position = 0;
  const flush = () => {
    if (literal) parts.push({ field: null, text: literal });
    literal = "";
  };
  for (const match of template.matchAll(PIECE)) {
    literal += template.slice(position, match.index);
    position = match.index + match[0].length;
    if (match[1] === undefined) {
      literal += match[0][0];
      continue;
    }
    flush();
    parts.push({ field: match[1], text: match[1] });
  }
  literal += template.slice(position);
  flush();
  return parts;
}

export interface FilledPart extends Part {
  isBlank: boolean;
}

/** A template with the form's values in place; a field without one shows its name. */
export function filledParts(file: PromptFile, template: string, values: Values): FilledPart[] {
  return templateParts(template).map(({ field, text }) => {
    if (field === null) return { field, text, isBlank: false };
    const value = asRead(file.inputs[field], values[field] ?? "");
    return { field, text: value || field, isBlank: value === "" };
  });
}

/** How a value reads in a prompt: as the server writes it (`tasks/inputs.py`). */
function asRead(input: InputDeclaration | undefined, value: Value): string {
  if (input?.type === "boolean") return value === true ? "yes" : "no";
  return input?.type === "list" ? itemsOf(value).join(input.separator ?? ", ") : String(value);
}

/** The template in force: that of the chosen style, with its examples before it, each on its own line. */
export function templateOf(file: PromptFile, style?: string): string {
  const { examples = [], template } = (style && file.styles?.[style]) || file;
  return examples.map((example) => `${example.replace(/[{}]/g, "$&$&")}\n`).join("") + template;
}

/**
 * The parts of an explained prompt, split where the cached tokens end. `tokenTexts` are the prompt's tokens; where they
 * don't spell the prompt (a character cut in two by tokens), nothing is marked as cached.
 */
export function cachedParts(explanation: Explanation, tokenTexts: string[]): CachedPart[] {
  const spellsPrompt = tokenTexts.join("") === explanation.prompt;
  let cached = spellsPrompt ? tokenTexts.slice(0, explanation.cached_tokens).join("").length : 0;
  return explanation.parts.flatMap(({ field, text }) => {
    const isFrom = Math.min(cached, text.length);
    cached -= isFrom;
    return [
      { field, text: text.slice(0, isFrom), isCached: true },
      { field, text: text.slice(isFrom), isCached: false },
    ].filter((part) => part.text !== "");
  });
}
