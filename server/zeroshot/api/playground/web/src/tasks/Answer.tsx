import type { TaskAnswer } from "../api/tasks";
import { compact, duration } from "../ui/format";
import { ScoreBars } from "./ScoreBars";
import type { Outcome } from "./Workbench";

export function Answer({ outcome, onThink }: { outcome: Outcome; onThink: (text: string) => void }) {
  const { answer } = outcome;
  const { explain } = answer;
  const score = textScore(answer);
  const text = typeof answer.output === "string" ? answer.output : JSON.stringify(answer.output, null, 2);
  return (
    <section class="answer" aria-label="Answer">
      {score ? (
        <p class="big-number">
          {compact(score.perplexity)} <span>perplexity per token</span>
        </p>
      ) : text === "" ? (
        <p class="nothing">Nothing: the model ended the text at once.</p>
      ) : (
        <p class={textClass(text)}>{text}</p>
      )}
      {answer.scores && <ScoreBars answers={[answer, ...outcome.others]} />}
      <Meters outcome={outcome} />
      {(score || explain.completion) && (
        <button class="small" type="button" onClick={() => onThink(explain.prompt + (explain.completion ?? ""))}>
          See it token by token
        </button>
      )}
    </section>
  );
}

export const textClass = (text: string): string => (text.length > 160 ? "answer-text is-long" : "answer-text");

function Meters({ outcome: { answer, latencyMs } }: { outcome: Outcome }) {
  const { usage, explain } = answer;
  const score = textScore(answer);
  const meters: [string, string][] = [
    ["time", duration(latencyMs)],
    ["read", `${usage.prompt_tokens} tokens`],
    ["cached", `${usage.cached_tokens} tokens`],
  ];
  if (usage.completion_tokens) {
    meters.push(["wrote", `${usage.completion_tokens} tokens`]);
    meters.push(["speed", `${compact((usage.completion_tokens / latencyMs) * 1000)} tokens/s`]);
  }
  if (score) meters.push(["log-probability", score.logprob.toFixed(2)]);
  if (explain.finish_reason) meters.push(["ended by", endedBy(explain.finish_reason, explain.stop_reason ?? null, explain.decoding?.keep)]);
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

interface TextScore {
  logprob: number;
  perplexity: number;
}

/** What a task of the kind `score` answers. A JSON task may have any object, but then something was generated. */
function textScore({ output, usage }: TaskAnswer): TextScore | null {
  const isScore = usage.completion_tokens === 0 && typeof output === "object" && output !== null && "perplexity" in output;
  return isScore ? (output as TextScore) : null;
}

const KEPT: Record<string, string> = {
  first_word: "the end of the word",
  first_line: "the end of the line",
  first_sentence: "the end of the sentence",
  three_sentences: "the end of three sentences",
};

/** `keep`: what the task keeps of the text, if not all of it. */
export function endedBy(reason: string, stop: string | number | null, keep?: unknown): string {
  if (reason === "length") return "its length";
  if (typeof stop === "string") return stop === "\n" ? "a new line" : `“${stop}”`;
  if (typeof stop === "number") return `token ${stop}`;
  return KEPT[String(keep)] ?? "end of text";
}
