import type { ScoredToken } from "../api/generate";
import { compact, percent } from "../ui/format";
import { summarize } from "./tree";

export function Verdict({ tokens }: { tokens: ScoredToken[] }) {
  const { numScored, perplexity, bitsPerToken, firstChoice } = summarize(tokens);
  if (perplexity === null || bitsPerToken === null || firstChoice === null) return null;
  return (
    <dl class="meters is-large">
      <div><dt>perplexity</dt><dd>{compact(perplexity)}</dd></div>
      <div><dt>bits per token</dt><dd>{bitsPerToken.toFixed(2)}</dd></div>
      <div><dt>its first choice</dt><dd>{percent(firstChoice)}</dd></div>
      <div><dt>tokens</dt><dd>{numScored}</dd></div>
    </dl>
  );
}
