/** What the server says of itself, asked every few seconds while the page is seen. */

import { useEffect, useState } from "preact/hooks";
import { authorization, url } from "../api/http";

export interface Health {
  status: string;
  model: string;
  version: string;
  maxModelLen: number | null;
}

const EVERY_MS = 5000;
const UNKNOWN: Health = { status: "connecting", model: "", version: "", maxModelLen: null };

export function useHealth(): Health {
  const [health, setHealth] = useState<Health>(UNKNOWN);
  useEffect(() => {
    const ask = () => {
      if (!document.hidden) void fetchHealth().then((answer) => setHealth((before) => ({ ...before, ...answer })));
    };
    ask();
    const timer = setInterval(ask, EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return health;
}

/** Not through `send`: a server that is not ready answers 503 and still says which model it has. */
async function fetchHealth(): Promise<Partial<Health>> {
  try {
    const response = await fetch(url("health"), { headers: authorization() });
    if (response.status === 401) return { status: "key needed" };
    const { status, model, version, max_model_len } = await response.json();
    return { status, model, version, maxModelLen: max_model_len };
  } catch {
    return { status: "unreachable" };
  }
}
