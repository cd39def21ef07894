import { CopyButton } from "../ui/CopyButton";
import { compact, duration } from "../ui/format";
import { endedBy } from "../tasks/Answer";
import type { Output, Session } from "./Complete";

interface Props {
  session: Session;
  isRunning: boolean;
  onGoOn: (text: string) => void;
  onThink: (text: string) => void;
  onKeepSeed: (seed: number) => void;
}

export function Outputs({ session, isRunning, onGoOn, onThink, onKeepSeed }: Props) {
  const { prompt, outputs } = session;
  return (
    <section aria-label="Continuations" aria-busy={isRunning}>
      <ol class={outputs.length > 1 ? "outputs is-many" : "outputs"}>
        {outputs.map((output, index) => (
          <li key={index} class="output" data-state={stateOf(output, isRunning)}>
            <p class="output-text">
              <span class="prompt-tail">{outputs.length === 1 ? prompt : tail(prompt)}</span>
              {output.text}
              {isRunning && !output.finishReason && <span class="caret" aria-hidden="true" />}
            </p>
            <footer>
              <span class="output-end">{endOf(output, isRunning)}</span>
              {!isRunning && (
                <>
                  <button class="small" type="button" onClick={() => onGoOn(prompt + output.text)}>
                    Go on
                  </button>
                  <button class="small" type="button" onClick={() => onThink(prompt + output.text)}>
                    See it think
                  </button>
                  <CopyButton text={output.text} />
                </>
              )}
            </footer>
          </li>
        ))}
      </ol>
      {session.usage && <RunMeters session={session} onKeepSeed={onKeepSeed} />}
    </section>
  );
}

function RunMeters({ session: { usage, totalMs, firstTokenMs, seed }, onKeepSeed }: { session: Session; onKeepSeed: (seed: number) => void }) {
  return (
    <dl class="meters">
      {firstTokenMs !== null && <div><dt>first token</dt><dd>{duration(firstTokenMs)}</dd></div>}
      {totalMs !== null && <div><dt>time</dt><dd>{duration(totalMs)}</dd></div>}
      {usage && totalMs !== null && <div><dt>speed</dt><dd>{compact((usage.completion_tokens / totalMs) * 1000)} tokens/s</dd></div>}
      {usage && <div><dt>read</dt><dd>{usage.prompt_tokens} tokens, {usage.cached_tokens} cached</dd></div>}
      {usage && <div><dt>wrote</dt><dd>{usage.completion_tokens} tokens</dd></div>}
      {seed !== null && <div><dt>seed</dt><dd><button class="link" type="button" onClick={() => onKeepSeed(seed)} title="Use this seed again">{seed}</button></dd></div>}
    </dl>
  );
}

function stateOf(output: Output, isRunning: boolean): string {
  if (output.finishReason) return "finished";
  return isRunning ? "streaming" : "stopped";
}

function endOf(output: Output, isRunning: boolean): string {
  if (output.finishReason) return `Ended by ${endedBy(output.finishReason, output.stopReason)}`;
  return isRunning ? "Writing…" : "Stopped here";
}

const TAIL_CHARS = 40;

/** The end of the prompt, from a word's beginning: with several side by side, the whole would only repeat. */
function tail(prompt: string): string {
  return prompt.length <= TAIL_CHARS ? prompt : `…${prompt.slice(-TAIL_CHARS).replace(/^\S*/, "")}`;
}
