import { Icon } from "../ui/Icon";
import type { Run } from "./history";

interface Props {
  runs: Run[];
  onRestore: (run: Run) => void;
  onForget: (at: number) => void;
  onClear: () => void;
}

export function HistoryList({ runs, onRestore, onForget, onClear }: Props) {
  return (
    <section class="panel" aria-labelledby="history-title">
      <header class="panel-head">
        <h2 id="history-title">History</h2>
        {runs.length > 0 && (
          <button class="small" type="button" onClick={onClear}>
            Clear
          </button>
        )}
      </header>
      {runs.length === 0 ? (
        <p class="hint">Your runs stay here, in this browser only.</p>
      ) : (
        <ol class="history">
          {runs.map((run) => (
            <li key={run.at}>
              <button class="history-item" type="button" onClick={() => onRestore(run)}>
                <span class="history-prompt">{run.prompt}</span>
                <span class="history-text">{run.texts[0]?.trim() || "(nothing)"}</span>
                <span class="history-when">
                  {when(run.at)}
                  {run.texts.length > 1 && ` · ${run.texts.length} texts`}
                </span>
              </button>
              <button class="chip-remove" type="button" aria-label={`Forget the run of ${when(run.at)}`} onClick={() => onForget(run.at)}>
                <Icon name="cross" />
              </button>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function when(at: number): string {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}
