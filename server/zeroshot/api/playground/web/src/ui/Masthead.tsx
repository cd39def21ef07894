import { useState } from "preact/hooks";
import { VIEWS, type View } from "../route";
import type { Health } from "./health";
import { Icon } from "./Icon";
import { storedTheme, storeTheme, THEMES } from "./theme";

const LABELS: Record<View, string> = { tasks: "Tasks", complete: "Complete", think: "Think", engine: "Engine" };

export function Masthead({ view, health }: { view: View; health: Health }) {
  return (
    <header class="masthead">
      <a class="wordmark" href="#/tasks" aria-label="Zeroshot, all tasks">
        <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
          <circle cx="10" cy="12" r="7.5" />
          <path d="M10 12h12.5M19 8.5l3.5 3.5-3.5 3.5" />
        </svg>
        Zeroshot
      </a>
      <nav aria-label="Views">
        {VIEWS.map((name) => (
          <a key={name} href={`#/${name}`} aria-current={name === view ? "page" : undefined}>
            {LABELS[name]}
          </a>
        ))}
      </nav>
      <div class="masthead-end">
        <span class="status" data-status={health.status} role="status">
          <span class="dot" aria-hidden="true" />
          <span class="model">{health.model || "…"}</span>
          <span class="status-word">{health.status}</span>
        </span>
        <a class="quiet-link" href="docs">
          API
        </a>
        <ThemeSwitch />
      </div>
    </header>
  );
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(storedTheme);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
  const change = () => {
    storeTheme(next);
    setTheme(next);
  };
  return (
    <button class="icon-button" type="button" onClick={change} aria-label={`Theme: ${theme}. Change to ${next}`} title={`Theme: ${theme}`}>
      <Icon name={theme} />
    </button>
  );
}
