/** Free text: one prompt, every sampling setting, some continuations side by side as they come. */

import { useRef, useState } from "preact/hooks";
import { generate, type Usage } from "../api/generate";
import { randomSeed } from "../api/http";
import { Code } from "../ui/Code";
import { ErrorNote } from "../ui/ErrorNote";
import { Icon } from "../ui/Icon";
import { RUN_KEYS, runAndStop } from "../ui/shortcuts";
import { useRun } from "../ui/useRun";
import { HistoryList } from "./HistoryList";
import { loadHistory, saveHistory, type Run } from "./history";
import { Outputs } from "./Outputs";
import { defaultSettings, toBody, type Settings } from "./settings";
import { SettingsPanel } from "./SettingsPanel";

/** One continuation as far as it has come. */
export interface Output {
  text: string;
  finishReason: string | null;
  stopReason: string | number | null;
}

export interface Session {
  prompt: string;
  outputs: Output[];
  seed: number | null;
  usage: Usage | null;
  firstTokenMs: number | null;
  totalMs: number | null;
}

const FIRST_PROMPT = "It was a dark night, and the wind";

export function Complete({ model, onThink }: { model: string; onThink: (text: string) => void }) {
  const [prompt, setPrompt] = useState(FIRST_PROMPT);
  const [settings, setSettings] = useState<Settings>(defaultSettings);
  const [session, setSession] = useState<Session | null>(null);
  const [history, setHistory] = useState<Run[]>(loadHistory);
  const { isRunning, error, start, stop } = useRun();
  const textarea = useRef<HTMLTextAreaElement>(null);
  const body = toBody(prompt, settings);

  const remember = (runs: Run[]) => setHistory(saveHistory(runs));
  const run = () =>
    start(async (signal) => {
      let latest: Session | null = null;
      const show = (next: Session) => setSession((latest = next));
      try {
        await streamInto(show, prompt, { seed: randomSeed(), ...body }, signal);
      } finally {
        if (latest) remember([toRun(latest, settings), ...loadHistory()]);
      }
    });
  const restore = (past: Run) => {
    stop();
    setPrompt(past.prompt);
    setSettings(past.settings);
    setSession(fromRun(past));
    textarea.current?.focus();
  };
  const goOn = (text: string) => {
    setPrompt(text);
    setSession(null);
    textarea.current?.focus();
  };

  return (
    <section class="complete" aria-labelledby="complete-title" onKeyDown={runAndStop({ onRun: run, onStop: stop })}>
      <header class="view-head">
        <h1 id="complete-title">Go on from here</h1>
        <p>Write the beginning; the model writes what comes next.</p>
      </header>
      <div class="complete-columns">
        <div class="complete-main">
          <label class="visually-hidden" for="prompt">Prompt</label>
          <textarea id="prompt" ref={textarea} class="voice page" rows={4} value={prompt} aria-invalid={error?.field === "prompt" || undefined} onInput={(event) => setPrompt(event.currentTarget.value)} placeholder="It was a dark night, and" />
          <div class="actions">
            {isRunning ? (
              <button class="primary" type="button" onClick={stop}>
                <Icon name="stop" /> Stop <kbd>Esc</kbd>
              </button>
            ) : (
              <button class="primary" type="button" onClick={run} disabled={prompt === ""}>
                Continue <kbd>{RUN_KEYS}</kbd>
              </button>
            )}
          </div>
          {error && <ErrorNote error={error} onRetry={run} />}
          {session ? (
            <Outputs session={session} isRunning={isRunning} onGoOn={goOn} onThink={onThink} onKeepSeed={(seed) => setSettings({ ...settings, seed: String(seed) })} />
          ) : (
            !error && <p class="empty">Continuations appear here, word by word. Ask for several at once with “Side by side”.</p>
          )}
          <Code call={{ path: "generate", body: { ...body, stream: true } }} openaiCall={toOpenAI(model, body)} />
        </div>
        <aside class="complete-side">
          <SettingsPanel settings={settings} wrongField={error?.field ?? null} lastSeed={session?.seed ?? null} onChange={setSettings} />
          <HistoryList runs={history} onRestore={restore} onForget={(at) => remember(history.filter((past) => past.at !== at))} onClear={() => remember([])} />
        </aside>
      </div>
    </section>
  );
}

async function streamInto(show: (session: Session) => void, prompt: string, body: Record<string, unknown>, signal: AbortSignal): Promise<void> {
  const begin = performance.now();
  const n = typeof body.n === "number" && body.n > 0 && body.n <= 128 ? body.n : 1;
  const blank = { text: "", finishReason: null, stopReason: null };
  let session: Session = { prompt, outputs: Array.from({ length: n }, () => blank), seed: null, usage: null, firstTokenMs: null, totalMs: null };
  const update = (changed: Partial<Session>) => show((session = { ...session, ...changed }));
  update({});
  for await (const event of generate(body, signal)) {
    const outputs = [...session.outputs];
    for (const piece of event.choices) {
      const before = outputs[piece.index] ?? blank;
      outputs[piece.index] = { text: before.text + piece.text, finishReason: piece.finish_reason, stopReason: piece.stop_reason };
    }
    update({ outputs, firstTokenMs: session.firstTokenMs ?? performance.now() - begin });
    if (event.usage) update({ usage: event.usage, seed: event.seed ?? null, totalMs: performance.now() - begin });
  }
}

function toRun(session: Session, settings: Settings): Run {
  return { at: Date.now(), prompt: session.prompt, settings, texts: session.outputs.map(({ text }) => text), seed: session.seed };
}

function fromRun({ prompt, texts, seed }: Run): Session {
  const outputs = texts.map((text) => ({ text, finishReason: null, stopReason: null }));
  return { prompt, outputs, seed, usage: null, firstTokenMs: null, totalMs: null };
}

/** The same request under OpenAI's names; its default length is 16, so ours is always named. */
function toOpenAI(model: string, { prompt, ...settings }: Record<string, unknown>) {
  return { model, prompt: String(prompt), settings };
}
