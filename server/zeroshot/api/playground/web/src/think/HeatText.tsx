/** The text as tokens, each a button: arrow keys move between them, so that Tab passes the text in one step. */

import { useRef } from "preact/hooks";
import type { ScoredToken } from "../api/generate";
import { percent, visible } from "../ui/format";
import { surprise } from "./tree";

interface Props {
  tokens: ScoredToken[];
  position: number | null;
  isRunning: boolean;
  onSelect: (position: number) => void;
}

export function HeatText({ tokens, position, isRunning, onSelect }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -tokens.length, End: tokens.length };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = Math.min(tokens.length - 1, Math.max(0, (position ?? 0) + step));
    box.current?.querySelectorAll<HTMLButtonElement>("button")[next]?.focus();
  };
  return (
    <>
      <div ref={box} class="heat-text" role="group" aria-label="Tokens. Arrow keys move between them." aria-busy={isRunning} onKeyDown={move}>
        {tokens.map((token, index) => (
          <button
            key={index}
            type="button"
            class={token.rank === 1 ? "heat" : "heat is-not-first"}
            style={{ "--surprise": surprise(token.logprob) }}
            tabIndex={index === (position ?? 0) ? 0 : -1}
            aria-pressed={index === position}
            aria-label={describe(token)}
            onFocus={() => onSelect(index)}
            onMouseEnter={() => onSelect(index)}
            onClick={(event) => event.currentTarget.focus()}
          >
            {shown(token.token)}
          </button>
        ))}
        {isRunning && <span class="caret" aria-hidden="true" />}
      </div>
      <div class="legend heat-legend">
        <span>sure</span>
        <span class="heat-scale" aria-hidden="true" />
        <span>surprised</span>
        <span class="key is-not-first">not its first choice</span>
      </div>
    </>
  );
}

/** A line break is shown as a sign and made. */
const shown = (token: string): string => token.replaceAll("\n", "⏎\n");

function describe(token: ScoredToken): string {
  const chance = token.logprob === null ? "no probability" : percent(Math.exp(token.logprob));
  return `${visible(token.token)}, ${chance}${token.rank === null ? "" : `, rank ${token.rank}`}`;
}
