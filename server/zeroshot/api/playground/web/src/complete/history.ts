/** The last runs, in this browser's local storage. */

import type { Settings } from "./settings";

export interface Run {
  at: number;
  prompt: string;
  settings: Settings;
  texts: string[];
  seed: number | null;
}

const KEY = "zeroshot.history";
const MAX_RUNS = 40;

export function loadHistory(storage: Storage = localStorage): Run[] {
  try {
    const runs: unknown = JSON.parse(storage.getItem(KEY) ?? "[]");
    return Array.isArray(runs) ? runs.filter(isRun) : [];
  } catch (error) {
    if (error instanceof SyntaxError) return []; // written by something else: start anew
    throw error;
  }
}

/** Newest first; gives up the oldest runs where the browser's room for them is full. */
export function saveHistory(runs: Run[], storage: Storage = localStorage): Run[] {
  for (let kept = runs.slice(0, MAX_RUNS); ; kept = kept.slice(0, Math.floor(kept.length / 2))) {
    try {
      storage.setItem(KEY, JSON.stringify(kept));
      return kept;
    } catch (error) {
      if (!(error instanceof DOMException) || kept.length === 0) throw error;
    }
  }
}

function isRun(value: unknown): value is Run {
  const run = value as Partial<Run> | null;
  return typeof run?.at === "number" && typeof run.prompt === "string" && Array.isArray(run.texts) && typeof run.settings?.numbers === "object";
}
