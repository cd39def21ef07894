/** One task: its form, the prompt as it takes shape, the answer and how it came. */

import { useMemo, useState } from "preact/hooks";
import { tokenize } from "../api/generate";
import { randomSeed } from "../api/http";
import { runTask, streamTask, type TaskAnswer, type TaskDetails, type TaskSummary } from "../api/tasks";
import { Code } from "../ui/Code";
import { ErrorNote } from "../ui/ErrorNote";
import { Icon } from "../ui/Icon";
import { RUN_KEYS, runAndStop } from "../ui/shortcuts";
import { useRun } from "../ui/useRun";
import { Answer, textClass } from "./Answer";
import { fieldsOf, initialValues, toBody, type Values } from "./form";
import { Form } from "./Form";
import { KINDS } from "./Gallery";
import { openaiCall } from "./openai";
import { PromptSheet } from "./PromptSheet";

/** What one run gave: the answer, and the same scores under the other calibrations. */
export interface Outcome {
  answer: TaskAnswer;
  others: TaskAnswer[];
  tokenTexts: string[];
  latencyMs: number;
}

interface Props {
  task: TaskDetails;
  tasks: TaskSummary[];
  model: string;
  onThink: (text: string) => void;
}

export function Workbench({ task, tasks, model, onThink }: Props) {
  const fields = useMemo(() => fieldsOf(task), [task]);
  const [values, setValues] = useState<Values>(() => initialValues(task));
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [written, setWritten] = useState("");
  const { isRunning, error, start, stop, clearError } = useRun();
  const body = toBody(fields, values);

  const run = () =>
    start(async (signal) => {
      setWritten("");
      setOutcome(await runOnce(task, body, signal, setWritten));
    });
  const change = (changed: Values) => {
    setValues(changed);
    clearError();
  };
  const shown = outcome && !isRunning ? outcome : null;

  return (
    <article class="bench" onKeyDown={runAndStop({ onRun: run, onStop: stop })}>
      <BenchHead task={task} tasks={tasks} />
      <div class="bench-columns">
        <form
          class="panel"
          onSubmit={(event) => {
            event.preventDefault();
            void run();
          }}
          noValidate
        >
          <Form fields={fields} values={values} errorField={error?.field ?? null} errorText={error?.message ?? ""} onChange={change} />
          <div class="actions">
            {isRunning ? (
              <button class="primary" type="button" onClick={stop}>
                <Icon name="stop" /> Stop <kbd>Esc</kbd>
              </button>
            ) : (
              <button class="primary" type="submit">
                Run <kbd>{RUN_KEYS}</kbd>
              </button>
            )}
            <button type="button" onClick={() => change(initialValues(task))}>
              Example
            </button>
          </div>
        </form>
        <div class="bench-out" aria-live="polite" aria-busy={isRunning}>
          {error && <ErrorNote error={error} onRetry={run} />}
          {shown && <Answer outcome={shown} onThink={onThink} />}
          {isRunning &&
            (written ? (
              <section class="answer writing" aria-label="Answer so far">
                <p class={textClass(written)}>{written}</p>
              </section>
            ) : (
              <div class="answer waiting" aria-label="The model is at it" />
            ))}
          <PromptSheet task={task} values={values} outcome={shown} />
          <Code
            call={{ path: `tasks/${task.name}`, body }}
            openaiCall={outcome && openaiCall(task, outcome.answer, model)}
            whyNot={outcome ? "The openai client has nothing like this scoring: it wants a prompt that ends where the options begin." : "Run it once: this client sends the prompt itself, and the run shows what it is."}
          />
        </div>
      </div>
    </article>
  );
}

async function runOnce(task: TaskDetails, chosen: Record<string, unknown>, signal: AbortSignal, onText: (text: string) => void): Promise<Outcome> {
  const { properties } = task.request_schema;
  const body = "seed" in properties ? { seed: randomSeed(), ...chosen } : chosen;
  const begin = performance.now();
  const answer = await ("stream" in properties ? streamTask(task.name, body, signal, onText) : runTask(task.name, body, signal));
  const latencyMs = performance.now() - begin;
  const calibrations = (properties.calibration?.enum ?? []).map(String);
  const others = calibrations.filter((name) => name !== answer.calibration);
  const [tokens, ...answers] = await Promise.all([
    tokenize(answer.explain.prompt, signal),
    ...others.map((calibration) => runTask(task.name, { ...body, calibration }, signal)),
  ]);
  return { answer, others: answers, tokenTexts: tokens.token_strs, latencyMs };
}

function BenchHead({ task, tasks }: { task: TaskDetails; tasks: TaskSummary[] }) {
  const go = (name: string) => {
    location.hash = `#/tasks/${encodeURIComponent(name)}`;
  };
  return (
    <header class="view-head">
      <p class="crumbs">
        <a href="#/tasks">
          <Icon name="back" /> All tasks
        </a>
        <label class="switch-task">
          <span class="visually-hidden">Another task</span>
          <select value={task.name} onChange={(event) => go(event.currentTarget.value)}>
            {tasks.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      </p>
      <h1>
        {task.name} <span class="kind">{KINDS[task.kind]}</span>
      </h1>
      <p>
        {task.summary} {task.prompt_file.description}
      </p>
      {task.prompt_file.paper && <p class="paper">{task.prompt_file.paper}</p>}
    </header>
  );
}
