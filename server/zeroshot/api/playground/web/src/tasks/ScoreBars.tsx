/** Candidates as bars: one row each, one bar for each way of calibrating. */

import type { TaskAnswer } from "../api/tasks";
import { percent } from "../ui/format";

const NAMES: Record<string, string> = {
  none: "as the model has it",
  contextual: "contextual calibration",
  pmi_dc: "PMI calibration",
};

export function ScoreBars({ answers }: { answers: TaskAnswer[] }) {
  const [first] = answers;
  return (
    <figure class="score-bars">
      <div role="table" aria-label="Probability of each candidate">
        {(first?.scores ?? []).map(({ label }, row) => (
          <div key={label} class="score-row" role="row">
            <span class={row === 0 ? "score-label is-best" : "score-label"} role="rowheader">
              {label}
            </span>
            <span class="score-values" role="cell">
              {answers.map((answer, index) => {
                const probability = answer.scores?.find((score) => score.label === label)?.probability ?? 0;
                return (
                  <span key={answer.calibration} class={`bar is-no-${index}`}>
                    <span class="bar-track">
                      <span class="bar-fill" style={{ width: `${probability * 100}%` }} />
                    </span>
                    <span class="bar-number">{percent(probability)}</span>
                  </span>
                );
              })}
            </span>
          </div>
        ))}
      </div>
      {answers.length > 1 && (
        <figcaption class="legend">
          {answers.map((answer, index) => (
            <span key={answer.calibration} class={`key bar-key is-no-${index}`}>
              {NAMES[answer.calibration ?? ""] ?? answer.calibration}
              {answer.output !== first?.output && `: ${String(answer.output)}`}
            </span>
          ))}
        </figcaption>
      )}
    </figure>
  );
}
