/** One run at a time: start, stop, what went wrong. A new run stops the one before; leaving the page stops it too. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, isAbort } from "../api/http";

export interface RunState {
  isRunning: boolean;
  error: ApiError | null;
  start: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>;
  stop: () => void;
  clearError: () => void;
}

export function useRun(): RunState {
  const controller = useRef<AbortController | null>(null);
  const [isRunning, setIsRunning] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);

  const start = useCallback(async (work: (signal: AbortSignal) => Promise<void>) => {
    controller.current?.abort();
    const own = new AbortController();
    controller.current = own;
    setError(null);
    setIsRunning(true);
    try {
      await work(own.signal);
    } catch (caught) {
      if (!isAbort(caught) && controller.current === own) setError(asApiError(caught));
    } finally {
      if (controller.current === own) setIsRunning(false);
    }
  }, []);

  const stop = useCallback(() => controller.current?.abort(), []);
  const clearError = useCallback(() => setError(null), []);
  useEffect(() => stop, [stop]);
  return { isRunning, error, start, stop, clearError };
}

/** A connection that breaks off in the middle of an answer is a TypeError of fetch. */
function asApiError(caught: unknown): ApiError {
  if (caught instanceof ApiError) return caught;
  if (caught instanceof TypeError) return new ApiError("The connection broke off.", 0, "connection_broken");
  throw caught;
}
