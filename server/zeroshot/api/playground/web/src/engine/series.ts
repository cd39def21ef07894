/** Readings of /metrics -> what the charts show. Rates and quantiles are of what happened between two readings. */

import { buckets, parseMetrics, quantile, total, type Sample } from "../api/metrics";

export interface Reading {
  atS: number;
  samples: Sample[];
}

export interface Point {
  atS: number;
  running: number | null;
  waiting: number | null;
  generationPerS: number | null;
  promptPerS: number | null;
  kvUsage: number | null;
  prefixHitRate: number | null;
  firstTokenMs: number | null;
  betweenTokensMs: number | null;
}

export type Measure = Exclude<keyof Point, "atS">;

export const NUM_POINTS = 120;

export const read = (text: string, atS: number): Reading => ({ atS, samples: parseMetrics(text) });

export function toPoint(before: Reading | null, now: Reading): Point {
  const rate = (name: string) => (before ? perSecond(before, now, name) : null);
  const median = (name: string) => (before ? medianMs(before, now, name) : null);
  const queries = before ? growth(before, now, "vllm:prefix_cache_queries_total") : null;
  const hits = before ? growth(before, now, "vllm:prefix_cache_hits_total") : null;
  return {
    atS: now.atS,
    running: total(now.samples, "vllm:num_requests_running"),
    waiting: total(now.samples, "vllm:num_requests_waiting"),
    generationPerS: rate("vllm:generation_tokens_total"),
    promptPerS: rate("vllm:prompt_tokens_total"),
    kvUsage: total(now.samples, "vllm:kv_cache_usage_perc"),
    prefixHitRate: queries && hits !== null ? hits / queries : null,
    firstTokenMs: median("vllm:time_to_first_token_seconds"),
    betweenTokensMs: median("vllm:inter_token_latency_seconds"),
  };
}

/** How much a counter grew. One that fell was reset by a restart: what it shows has grown since. */
function growth(before: Reading, now: Reading, name: string): number | null {
  const last = total(now.samples, name);
  if (last === null) return null;
  const first = total(before.samples, name) ?? 0;
  return last >= first ? last - first : last;
}

function perSecond(before: Reading, now: Reading, name: string): number | null {
  const grown = growth(before, now, name);
  return grown === null || now.atS <= before.atS ? null : grown / (now.atS - before.atS);
}

function medianMs(before: Reading, now: Reading, name: string): number | null {
  const seconds = quantile(0.5, buckets(before.samples, name), buckets(now.samples, name));
  return seconds === null ? null : seconds * 1000;
}
