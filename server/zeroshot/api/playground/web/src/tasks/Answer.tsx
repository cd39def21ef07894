import { compact, duration } from "../ui/format";
import { ScoreBars } from "./ScoreBars";
import type { Outcome } from "./Workbench";

export function Answer({ outcome, onThink }: { outcome: Outcome; onThink: (text: string) => void }) {
  const { answer } = outcome;
  const { output, explain } = answer;
  return (
    <section class="answer" aria-label="Answer">
      {typeof output !== "string" ? (
        <p class="big-number">
          {compact(output.perplexity)} <span>perplexity per token</span>
        </p>
      ) : output === "" ? (
        <p class="nothing">Nothing: the model ended the text at once.</p>
      ) : (
        <p class={output.length > 160 ? "answer-text is-long" : "answer-text"}>{output}</p>
      )}
      {answer.scores && <ScoreBars answers={[answer, ...outcome.others]} />}
      <Meters outcome={outcome} />
      {(typeof output !== "string" || explain.completion) && (
        <button class="small" type="button" onClick={() => onThink(explain.prompt + (explain.completion ?? ""))}>
          See it token by token
        </button>
      )}
    </section>
  );
}

function Meters({ outcome: { answer, latencyMs } }: { outcome: Outcome }) {
  const { usage, explain, output } = answer;
  const meters: [string, string][] = [
    ["time", duration(latencyMs)],
    ["read", `${usage.prompt_tokens} tokens`],
    ["cached", `${usage.cached_tokens} tokens`],
  ];
  if (usage.completion_tokens) {
    meters.push(["wrote", `${usage.completion_tokens} tokens`]);
    meters.push(["speed", `${compact((usage.completion_tokens / latencyMs) * 1000)} tokens/s`]);
  }
  if (typeof output !== "string") meters.push(["log-probability", output.logprob.toFixed(2)]);
  if (explain.finish_reason) meters.push(["ended by", endedBy(explain.finish_reason, explain.stop_reason ?? null)]);
  if (explain.seed !== undefined && explain.seed !== null && explain.decoding?.temperature !== 0) meters.push(["seed", String(explain.seed)]);
  return (
    <dl class="meters">
      {meters.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function endedBy(reason: string, stop: string | number | null): string {
  if (reason === "length") return "its length";
  if (typeof stop === "string") return stop === "\n" ? "a new line" : `“${stop}”`;
  return typeof stop === "number" ? `token ${stop}` : "end of text";
}
