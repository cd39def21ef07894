/** GET /tasks, GET /tasks/<name>, POST /tasks/<name>. */

import type { Usage } from "./generate";
import { sendJson } from "./http";
import { streamJson } from "./stream";

export type Kind = "text" | "json" | "label" | "choice" | "score";

export interface TaskSummary {
  name: string;
  summary: string;
  kind: Kind;
  version: string;
}

export interface TaskList {
  tasks: TaskSummary[];
  errors: { file: string; message: string; serving: string | null }[];
}

/** One property of a request's JSON Schema, as pydantic writes it. */
export interface Property {
  type?: string;
  title?: string;
  description?: string;
  default?: unknown;
  examples?: unknown[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Property[];
  items?: Property;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  maxLength?: number;
}

export interface InputDeclaration {
  type: "string" | "integer" | "number" | "boolean" | "enum" | "list";
  separator?: string;
  default?: unknown;
}

export interface PromptFile {
  template: string;
  examples?: string[];
  styles?: Record<string, { template: string; examples?: string[]; description?: string }>;
  style?: string;
  inputs: Record<string, InputDeclaration>;
  output: { kind: Kind; labels?: string[] | string; options?: string; scoring?: string; schema?: object; example?: unknown };
  paper?: string;
  description?: string;
}

export interface TaskDetails extends TaskSummary {
  prompt_file: PromptFile;
  example: Record<string, unknown> | null;
  request_schema: { properties: Record<string, Property>; required?: string[] };
}

export interface Score {
  label: string;
  probability: number;
  logprob: number;
  tokens: number;
}

export interface Explanation {
  prompt: string;
  parts: { field: string | null; text: string; tokens: number }[];
  prompt_tokens: number;
  cached_tokens: number;
  truncated: { field: string; tokens: number } | null;
  seed?: number | null;
  decoding?: Record<string, unknown> | null;
  finish_reason?: string | null;
  stop_reason?: string | number | null;
  completion?: string | null;
}

export interface TaskAnswer {
  task: string;
  version: string;
  /** The text, the label or option, the value that fits the task's JSON schema, or how probable a text is. */
  output: unknown;
  scores?: Score[];
  calibration?: string;
  usage: Usage;
  explain: Explanation;
}

export const listTasks = (signal?: AbortSignal): Promise<TaskList> => sendJson("tasks", undefined, signal);

export const taskDetails = (name: string, signal?: AbortSignal): Promise<TaskDetails> =>
  sendJson(`tasks/${encodeURIComponent(name)}`, undefined, signal);

export const runTask = (name: string, body: object, signal?: AbortSignal): Promise<TaskAnswer> =>
  sendJson(`tasks/${encodeURIComponent(name)}`, { ...body, explain: true }, signal);

/** The same of a task that can stream: `onText` gets the output as far as it has come. */
export async function streamTask(name: string, body: object, signal: AbortSignal, onText: (text: string) => void): Promise<TaskAnswer> {
  let output = "";
  let last: TaskAnswer | null = null;
  for await (const event of streamJson<TaskAnswer>(`tasks/${encodeURIComponent(name)}`, { ...body, explain: true }, signal)) {
    output += String(event.output);
    onText(output);
    last = event;
  }
  return { ...last!, output };
}
