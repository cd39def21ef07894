/** The prompt: as the form fills it while one types, and after a run as the model read it. */

import type { TaskDetails } from "../api/tasks";
import type { Values } from "./form";
import { cachedParts, filledParts, templateOf } from "./prompt";
import type { Outcome } from "./Workbench";

interface Props {
  task: TaskDetails;
  values: Values;
  outcome: Outcome | null;
}

export function PromptSheet({ task, values, outcome }: Props) {
  return (
    <section class="sheet" aria-labelledby="sheet-title">
      <h2 id="sheet-title">{outcome ? "What the model read" : "The prompt"}</h2>
      <div class="sheet-text" tabIndex={0} role="group" aria-labelledby="sheet-title">
        {outcome ? <ReadPrompt outcome={outcome} /> : <DraftPrompt task={task} values={values} />}
      </div>
      {outcome && <Facts outcome={outcome} />}
    </section>
  );
}

function DraftPrompt({ task, values }: { task: TaskDetails; values: Values }) {
  const file = task.prompt_file;
  const template = templateOf(file, typeof values.style === "string" ? values.style : undefined);
  return (
    <>
      {filledParts(file, template, values).map(({ field, text, isBlank }, index) =>
        field === null ? text : <mark key={index} class={isBlank ? "yours is-blank" : "yours"} title={field}>{text}</mark>,
      )}
    </>
  );
}

function ReadPrompt({ outcome }: { outcome: Outcome }) {
  const { explain } = outcome.answer;
  return (
    <>
      {cachedParts(explain, outcome.tokenTexts).map(({ field, text, isCached }, index) => {
        const shown = field === null ? text : <mark class="yours" title={field}>{text}</mark>;
        return isCached ? <span key={index} class="from-cache">{shown}</span> : <span key={index}>{shown}</span>;
      })}
      {explain.completion && <ins class="completion">{explain.completion}</ins>}
    </>
  );
}

function Facts({ outcome: { answer, tokenTexts } }: { outcome: Outcome }) {
  const { explain } = answer;
  return (
    <>
      <ul class="legend">
        <li><span class="key yours">yours</span></li>
        {explain.cached_tokens > 0 && <li><span class="key from-cache">from the cache, {explain.cached_tokens} of {explain.prompt_tokens} tokens</span></li>}
        {explain.completion && <li><span class="key completion">the model's</span></li>}
        {explain.truncated && (
          <li class="cut">
            {explain.truncated.field} was cut by {explain.truncated.tokens} tokens to fit
          </li>
        )}
      </ul>
      <details class="more">
        <summary>As {explain.prompt_tokens} tokens</summary>
        <p class="token-list">
          {tokenTexts.map((text, index) => (
            <span key={index} class={index < explain.cached_tokens ? "token from-cache" : "token"}>
              {text.replaceAll("\n", "⏎")}
            </span>
          ))}
        </p>
      </details>
    </>
  );
}
