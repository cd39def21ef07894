/** The frame around the four views. A view that was opened stays alive behind the others: its stream goes on. */

import { useEffect, useState } from "preact/hooks";
import { Complete } from "./complete/Complete";
import { Engine } from "./engine/Engine";
import { useRoute, type View } from "./route";
import { Tasks } from "./tasks/Tasks";
import { Think } from "./think/Think";
import { KeyDialog } from "./ui/KeyDialog";
import { Masthead } from "./ui/Masthead";
import { useHealth } from "./ui/health";

const TITLES: Record<View, string> = { tasks: "Tasks", complete: "Complete", think: "See it think", engine: "Engine" };

/** A text that one view gives another; `id` tells two handings of the same text apart. */
export interface Handed {
  text: string;
  id: number;
}

export function App() {
  const route = useRoute();
  const health = useHealth();
  const [opened, setOpened] = useState<Set<View>>(new Set());
  const [handed, setHanded] = useState<Handed | null>(null);
  const [epoch, setEpoch] = useState(0);

  useEffect(() => {
    setOpened((before) => new Set(before).add(route.view));
    document.title = `${route.name ?? TITLES[route.view]} · Zeroshot`;
  }, [route.view, route.name]);

  const think = (text: string) => {
    setHanded((before) => ({ text, id: (before?.id ?? 0) + 1 }));
    location.hash = "#/think";
  };
  const shows = (view: View) => view === route.view || opened.has(view);
  const model = health.model;

  return (
    <>
      <a class="skip" href="#main" onClick={skipToMain}>
        Skip to content
      </a>
      <Masthead view={route.view} health={health} />
      <main id="main" tabIndex={-1} key={epoch}>
        {shows("tasks") && (
          <div hidden={route.view !== "tasks"}>
            <Tasks name={route.name} model={model} isShown={route.view === "tasks"} onThink={think} />
          </div>
        )}
        {shows("complete") && (
          <div hidden={route.view !== "complete"}>
            <Complete model={model} onThink={think} />
          </div>
        )}
        {shows("think") && (
          <div hidden={route.view !== "think"}>
            <Think handed={handed} />
          </div>
        )}
        {shows("engine") && (
          <div hidden={route.view !== "engine"}>
            <Engine isShown={route.view === "engine"} health={health} />
          </div>
        )}
      </main>
      <KeyDialog onKey={() => setEpoch((before) => before + 1)} />
    </>
  );
}

/** By hand: following the link would change the route. */
function skipToMain(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
