/** A text token by token: how sure the model was of each, what else it had in mind, and where that would have led. */

import { useEffect, useState } from "preact/hooks";
import type { Handed } from "../app";
import { generate, scoreText, type Alternative, type ScoredToken } from "../api/generate";
import { ErrorNote } from "../ui/ErrorNote";
import { Icon } from "../ui/Icon";
import { RUN_KEYS, runAndStop } from "../ui/shortcuts";
import { useRun } from "../ui/useRun";
import { Alternatives } from "./Alternatives";
import { BranchList } from "./BranchList";
import { HeatText } from "./HeatText";
import { SurpriseChart } from "./SurpriseChart";
import { append, fork, newTree, textOf, type Tree } from "./tree";
import { Verdict } from "./Verdict";

const EXAMPLE = "translate English to French: I am hungry. =";
const NUM_ALTERNATIVES = 10;
const LENGTHS = [10, 20, 40, 80];

export function Think({ handed }: { handed: Handed | null }) {
  const [text, setText] = useState(EXAMPLE);
  const [length, setLength] = useState(20);
  const [tree, setTree] = useState<Tree | null>(null);
  const [position, setPosition] = useState<number | null>(null);
  const { isRunning, error, start, stop } = useRun();
  const tokens = tree ? textOf(tree, tree.current) : [];

  const read = (source: string, extra: number) =>
    start(async (signal) => {
      setPosition(null);
      const scored = await scoreText(source, NUM_ALTERNATIVES, signal);
      const grown = newTree(scored.tokens);
      setTree(grown);
      if (extra) await grow(grown, extra, setTree, signal);
    });
  const follow = (alternative: Alternative) => {
    if (!tree || position === null) return;
    const forked = fork(tree, position, alternative);
    setTree(forked);
    void start((signal) => grow(forked, length, setTree, signal));
  };
  useEffect(() => {
    if (!handed) return;
    setText(handed.text);
    void read(handed.text, 0);
  }, [handed?.id]);

  const selected = position === null ? null : (tokens[position] ?? null);
  return (
    <section class="think" aria-labelledby="think-title" onKeyDown={runAndStop({ onRun: () => read(text, length), onStop: stop })}>
      <header class="view-head">
        <h1 id="think-title">See it think</h1>
        <p>
          Each token is coloured by how <span class="surprising">surprised</span> the model was to see it. Point at one to see
          the ten that it found most likely; choose another, and the text goes on from there.
        </p>
      </header>
      <div class="think-input">
        <label class="visually-hidden" for="think-text">Text</label>
        <textarea id="think-text" class="voice page" rows={2} value={text} aria-invalid={error?.field === "text" || undefined} onInput={(event) => setText(event.currentTarget.value)} placeholder="Paste a text, or write the beginning of one" />
        <div class="actions">
          {isRunning ? (
            <button class="primary" type="button" onClick={stop}><Icon name="stop" /> Stop <kbd>Esc</kbd></button>
          ) : (
            <button class="primary" type="button" onClick={() => read(text, length)} disabled={!text}>Continue it <kbd>{RUN_KEYS}</kbd></button>
          )}
          <label class="inline-field">
            <span>by</span>
            <select value={length} onChange={(event) => setLength(Number(event.currentTarget.value))} aria-label="Tokens to continue by">
              {LENGTHS.map((count) => <option key={count} value={count}>{count} tokens</option>)}
            </select>
          </label>
          <button type="button" onClick={() => read(text, 0)} disabled={!text || isRunning}>Only read it</button>
        </div>
      </div>
      {error && <ErrorNote error={error} />}
      {tree ? (
        <div class="think-columns">
          <div class="think-main">
            <Verdict tokens={tokens} />
            <SurpriseChart tokens={tokens} position={position} onSelect={setPosition} />
            <HeatText tokens={tokens} position={position} isRunning={isRunning} onSelect={setPosition} />
            <BranchList tree={tree} onChoose={(id) => setTree({ ...tree, current: id })} />
          </div>
          <Alternatives token={selected} position={position} isRunning={isRunning} onFollow={follow} />
        </div>
      ) : (
        !error && <p class="empty">{isRunning ? "Reading…" : "Nothing read yet. Continue the text above, or only read it."}</p>
      )}
    </section>
  );
}

/** Continues the tree's current text greedily, token by token, showing it as it comes. */
async function grow(tree: Tree, length: number, show: (tree: Tree) => void, signal: AbortSignal): Promise<void> {
  const id = tree.current;
  const prompt = textOf(tree, id).map((token) => token.token_id);
  const body = { prompt, max_tokens: length, temperature: 0, logprobs: NUM_ALTERNATIVES };
  for await (const event of generate(body, signal)) {
    const tokens: ScoredToken[] = event.choices.flatMap((choice) => choice.logprobs ?? []);
    if (tokens.length) show((tree = append(tree, id, tokens)));
  }
}
