/** Where one is: the part of the address after `#/`. */

import { useEffect, useState } from "preact/hooks";

export const VIEWS = ["tasks", "complete", "think", "engine"] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  view: View;
  /** The task's name, in the tasks' view. */
  name: string | null;
}

export function parseRoute(hash: string): Route {
  const [view, name] = hash.replace(/^#\/?/, "").split("/");
  const known = VIEWS.find((candidate) => candidate === view) ?? "tasks";
  return { view: known, name: known === "tasks" && name ? decodeURIComponent(name) : null };
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const follow = () => setRoute(parseRoute(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}
