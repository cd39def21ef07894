/** The same run with the openai client, which knows no tasks: the prompt as it was rendered, and the same settings. */

import type { OpenAICall } from "../api/snippets";
import type { TaskAnswer, TaskDetails } from "../api/tasks";

interface Grammar {
  kind: "regex" | "json_schema";
  source: string;
}

/** Null for options in the middle of a prompt, where there is no completion to ask for, and for beam search. */
export function openaiCall(task: TaskDetails, { explain, scores }: TaskAnswer, model: string): OpenAICall | null {
  const call = { model, prompt: explain.prompt };
  if (task.kind === "text" || task.kind === "json") {
    // `keep` is the task's own: the text then goes on where the task would have ended it.
    const { keep: _, beams, grammar, ...settings } = explain.decoding ?? {};
    if (beams) return null;
    const structured = grammar ? { structured_outputs: structuredOutputs(grammar as Grammar) } : {};
    return { ...call, settings: { ...settings, seed: explain.seed ?? undefined, ...structured } };
  }
  if (task.kind === "score") return { ...call, settings: { max_tokens: 0, echo: true, logprobs: 0 } };
  if (task.prompt_file.output.scoring) return null;
  const choice = (scores ?? []).map(({ label }) => ` ${label}`);
  return { ...call, settings: { temperature: 0, logprobs: 1, structured_outputs: { choice } } };
}

function structuredOutputs({ kind, source }: Grammar): Record<string, unknown> {
  return kind === "regex" ? { regex: source } : { json: JSON.parse(source) };
}
