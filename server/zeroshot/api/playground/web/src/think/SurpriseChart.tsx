/** One bar a token: the text's surprise at a glance. For the eye and the pointer; the tokens below say the same in words. */

import type { ScoredToken } from "../api/generate";
import { surprise } from "./tree";

const HEIGHT = 44;
const STEP = 6;

interface Props {
  tokens: ScoredToken[];
  position: number | null;
  onSelect: (position: number) => void;
}

export function SurpriseChart({ tokens, position, onSelect }: Props) {
  const width = Math.max(1, tokens.length) * STEP;
  return (
    <svg class="surprise-chart" viewBox={`0 0 ${width} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {tokens.map((token, index) => {
        const height = 1.5 + surprise(token.logprob) * (HEIGHT - 1.5);
        return (
          <g key={index} class={index === position ? "is-selected" : undefined} onMouseEnter={() => onSelect(index)}>
            <rect class="hit" x={index * STEP} y={0} width={STEP} height={HEIGHT} />
            <rect class="column" x={index * STEP + 0.5} y={HEIGHT - height} width={STEP - 1} height={height} />
          </g>
        );
      })}
    </svg>
  );
}
