/** The engine at work: a reading a second, the last two minutes as charts. */

import { useEffect, useRef, useState } from "preact/hooks";
import { generate } from "../api/generate";
import { ApiError, isAbort, send } from "../api/http";
import type { Health } from "../ui/health";
import { compact, percent } from "../ui/format";
import { ErrorNote } from "../ui/ErrorNote";
import { useRun } from "../ui/useRun";
import { Chart } from "./Chart";
import { NUM_POINTS, read, toPoint, type Point, type Reading } from "./series";

const EVERY_MS = 1000;
const BURST = 16;
/** Enough for several readings on a fast machine. */
const BURST_TOKENS = 900;
/** More than the tokens of a burst's prompt. */
const BURST_PROMPT_ROOM = 64;

export function Engine({ isShown, health }: { isShown: boolean; health: Health }) {
  const { points, error } = usePoints(isShown);
  const burst = useRun();
  return (
    <section class="engine" aria-labelledby="engine-title">
      <header class="view-head">
        <h1 id="engine-title">The engine, live</h1>
        <p>
          {health.model || "The model"} with a context of {health.maxModelLen?.toLocaleString("en") ?? "…"} tokens, as{" "}
          <a href="metrics">/metrics</a> tells it each second.
        </p>
        <div class="actions">
          {burst.isRunning ? (
            <button type="button" onClick={burst.stop}>Stop them</button>
          ) : (
            <button type="button" onClick={() => burst.start((signal) => sendBurst(health, signal))}>Send {BURST} prompts at once</button>
          )}
          {!burst.isRunning && <span class="hint">and see them batched.</span>}
        </div>
      </header>
      {(burst.error ?? error) && <ErrorNote error={(burst.error ?? error)!} />}
      <div class="charts">
        <Chart points={points} title="Requests" unit="" format={compact} lines={[["running", "running"], ["waiting", "waiting"]]} atLeast={4} />
        <Chart points={points} title="Tokens per second" unit="" format={compact} lines={[["generationPerS", "written"], ["promptPerS", "read"]]} atLeast={50} />
        <Chart points={points} title="KV cache in use" unit="" format={percent} lines={[["kvUsage", "of all blocks"]]} atLeast={0.05} />
        <Chart points={points} title="Prompt tokens from the cache" unit="" format={percent} lines={[["prefixHitRate", "of those read"]]} atLeast={1} />
        <Chart points={points} title="Time to first token" unit=" ms" format={compact} lines={[["firstTokenMs", "median"]]} atLeast={20} />
        <Chart points={points} title="Time between tokens" unit=" ms" format={compact} lines={[["betweenTokensMs", "median"]]} atLeast={5} />
      </div>
    </section>
  );
}

function usePoints(isShown: boolean): { points: Point[]; error: ApiError | null } {
  const last = useRef<Reading | null>(null);
  const [points, setPoints] = useState<Point[]>([]);
  const [error, setError] = useState<ApiError | null>(null);

  useEffect(() => {
    if (!isShown) return;
    const controller = new AbortController();
    const take = async () => {
      const response = await send("metrics", undefined, controller.signal);
      const reading = read(await response.text(), performance.now() / 1000);
      const point = toPoint(last.current, reading);
      last.current = reading;
      setPoints((before) => [...before, point].slice(-NUM_POINTS));
      setError(null);
    };
    const takeOrSay = () => {
      if (document.hidden) return;
      take().catch((caught) => {
        if (isAbort(caught)) return;
        if (!(caught instanceof ApiError)) throw caught;
        setError(caught);
      });
    };
    takeOrSay();
    const timer = setInterval(takeOrSay, EVERY_MS);
    return () => {
      clearInterval(timer);
      controller.abort();
    };
  }, [isShown]);
  return { points, error };
}

/**
 * One request with many prompts: a browser opens only six connections to a host, and streams would hold them all while
 * the readings wait. The prompts begin alike, so that the prefix cache has something to do.
 */
async function sendBurst(health: Health, signal: AbortSignal): Promise<void> {
  const beginning = "The old captain looked out over the harbour, where the boats lay still in the morning light.";
  const prompt = Array.from({ length: BURST }, (_, day) => `${beginning} Day ${day + 1}:`);
  const max_tokens = Math.min(BURST_TOKENS, (health.maxModelLen ?? Infinity) - BURST_PROMPT_ROOM);
  for await (const _ of generate({ prompt, max_tokens, ignore_eos: true }, signal));
}
