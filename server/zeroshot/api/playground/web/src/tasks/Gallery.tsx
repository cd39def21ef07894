import type { Kind, TaskDetails, TaskList, TaskSummary } from "../api/tasks";
import { initialValues } from "./form";
import { filledParts } from "./prompt";

export const KINDS: Record<Kind, string> = {
  text: "writes text",
  json: "writes JSON",
  label: "picks a label",
  choice: "picks an option",
  score: "scores a text",
};

export function Gallery({ list, details }: { list: TaskList; details: Map<string, TaskDetails> }) {
  return (
    <section aria-labelledby="tasks-title">
      <header class="view-head">
        <h1 id="tasks-title">A prompt is an endpoint</h1>
        <p>
          Each card is one file in <code>prompts/</code>. The words in <span class="yours">blue</span> are yours, the rest is
          what the model always reads. Add a file, and its card is here.
        </p>
      </header>
      {list.errors.map((broken) => (
        <div key={broken.file} class="error-note" role="alert">
          <p>
            <strong>{broken.file}</strong> has a mistake
            {broken.serving ? `; its last good version goes on serving as ${broken.serving}` : " and serves nothing"}.
          </p>
          <p class="error-code">{broken.message}</p>
        </div>
      ))}
      {list.tasks.length === 0 && (
        <div class="empty">
          <p>
            No prompt files yet. A file such as <code>prompts/shout.yaml</code> becomes a card here within seconds.
          </p>
        </div>
      )}
      <ul class="cards">
        {list.tasks.map((task) => (
          <li key={task.name}>
            <Card task={task} details={details.get(task.name)} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The prompt filled with the file's own example, and what it hopes the model adds. */
function Card({ task, details }: { task: TaskSummary; details?: TaskDetails }) {
  const values = details ? { ...initialValues(details), option: asExample(details.prompt_file.output.example ?? "option") } : {};
  const file = details?.prompt_file;
  const hasAnswer = file && !file.output.scoring && file.output.example;
  return (
    <a class="card" href={`#/tasks/${encodeURIComponent(task.name)}`}>
      <span class="card-head">
        <strong>{task.name}</strong>
        <span class="kind">{KINDS[task.kind]}</span>
      </span>
      <span class="card-summary">{task.summary}</span>
      <span class="card-template" aria-hidden="true">
        {file && filledParts(file, file.template, values).map(({ field, text }, index) => (field ? <span key={index} class="yours">{text}</span> : text))}
        {hasAnswer && <b> {asExample(file.output.example)}</b>}
      </span>
    </a>
  );
}

const asExample = (value: unknown): string => (typeof value === "string" ? value.trim() : JSON.stringify(value));
