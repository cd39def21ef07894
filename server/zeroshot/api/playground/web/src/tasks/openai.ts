/** The same run with the openai client, which knows no tasks: the prompt as it was rendered, and the same settings. */

import type { OpenAICall } from "../api/snippets";
import type { TaskAnswer, TaskDetails } from "../api/tasks";

/** Null for options in the middle of a prompt: there is no completion to ask for. */
export function openaiCall(task: TaskDetails, { explain, scores }: TaskAnswer, model: string): OpenAICall | null {
  const call = { model, prompt: explain.prompt };
  if (task.kind === "text") return { ...call, settings: { ...explain.decoding, seed: explain.seed ?? undefined } };
  if (task.kind === "json") {
    const structured_outputs = { json: task.prompt_file.output.schema };
    return { ...call, settings: { ...explain.decoding, seed: explain.seed ?? undefined, structured_outputs } };
  }
  if (task.kind === "score") return { ...call, settings: { max_tokens: 0, echo: true, logprobs: 0 } };
  if (task.prompt_file.output.scoring) return null;
  const choice = (scores ?? []).map(({ label }) => ` ${label}`);
  return { ...call, settings: { temperature: 0, logprobs: 1, structured_outputs: { choice } } };
}
