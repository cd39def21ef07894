/** POST /generate, POST /score, POST /tokenize. */

import { sendJson } from "./http";
import { streamJson } from "./stream";

export interface Alternative {
  token_id: number;
  token: string;
  logprob: number;
}

export interface ScoredToken {
  token_id: number;
  token: string;
  logprob: number | null;
  rank: number | null;
  top: Alternative[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  cached_tokens: number;
}

export interface Piece {
  index: number;
  text: string;
  finish_reason: string | null;
  stop_reason: string | number | null;
  token_ids?: number[];
  logprobs?: ScoredToken[];
}

export interface GenerateEvent {
  id: string;
  model: string;
  choices: Piece[];
  seed?: number;
  usage?: Usage;
}

export interface ScoreResult {
  logprob: number;
  perplexity: number;
  num_tokens: number;
  tokens: ScoredToken[];
}

export interface Tokens {
  count: number;
  max_model_len: number;
  tokens: number[];
  token_strs: string[];
}

export const generate = (body: Record<string, unknown>, signal: AbortSignal): AsyncGenerator<GenerateEvent> =>
  streamJson("generate", body, signal);

export async function scoreText(text: string, topLogprobs: number, signal?: AbortSignal): Promise<ScoreResult> {
  const answer = await sendJson<{ results: ScoreResult[] }>("score", { text, top_logprobs: topLogprobs }, signal);
  return answer.results[0]!;
}

export function tokenize(prompt: string, signal?: AbortSignal): Promise<Tokens> {
  return sendJson<Tokens>("tokenize", { prompt, return_token_strs: true }, signal);
}
