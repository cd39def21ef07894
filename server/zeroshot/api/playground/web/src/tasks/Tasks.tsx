/** All tasks as cards, or one of them to run. */

import { useEffect, useState } from "preact/hooks";
import { ApiError, isAbort } from "../api/http";
import { listTasks, taskDetails, type TaskDetails, type TaskList } from "../api/tasks";
import { ErrorNote } from "../ui/ErrorNote";
import { Gallery } from "./Gallery";
import { Workbench } from "./Workbench";

interface Props {
  name: string | null;
  model: string;
  isShown: boolean;
  onThink: (text: string) => void;
}

export function Tasks({ name, model, isShown, onThink }: Props) {
  const { list, details, error, reload } = useCatalog(isShown);
  if (error) return <ErrorNote error={error} onRetry={reload} />;
  if (!list) return <GallerySkeleton />;
  if (name === null) return <Gallery list={list} details={details} />;
  const task = details.get(name);
  if (task) return <Workbench key={`${name} ${task.version}`} task={task} tasks={list.tasks} model={model} onThink={onThink} />;
  if (list.tasks.some((known) => known.name === name)) return <GallerySkeleton />;
  return (
    <div class="empty">
      <h1>No task called {name}</h1>
      <p>
        It may have been renamed. <a href="#/tasks">See all tasks.</a>
      </p>
    </div>
  );
}

/** The tasks and their schemas; asked again whenever the view is shown, because prompt files change while it runs. */
function useCatalog(isShown: boolean) {
  const [list, setList] = useState<TaskList | null>(null);
  const [details, setDetails] = useState<Map<string, TaskDetails>>(new Map());
  const [error, setError] = useState<ApiError | null>(null);
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    if (!isShown) return;
    const controller = new AbortController();
    const load = async () => {
      const found = await listTasks(controller.signal);
      const all = await Promise.all(found.tasks.map((task) => taskDetails(task.name, controller.signal)));
      setDetails(new Map(all.map((task) => [task.name, task])));
      setList(found);
      setError(null);
    };
    const loadOrSay = () =>
      load().catch((caught) => {
        if (isAbort(caught)) return;
        if (!(caught instanceof ApiError)) throw caught;
        setError(caught);
      });
    void loadOrSay();
    addEventListener("focus", loadOrSay);
    return () => {
      controller.abort();
      removeEventListener("focus", loadOrSay);
    };
  }, [isShown, attempt]);

  return { list, details, error, reload: () => setAttempt((before) => before + 1) };
}

function GallerySkeleton() {
  return (
    <div class="cards" aria-busy="true" aria-label="Loading the tasks">
      {Array.from({ length: 6 }, (_, index) => (
        <div key={index} class="card skeleton" />
      ))}
    </div>
  );
}
