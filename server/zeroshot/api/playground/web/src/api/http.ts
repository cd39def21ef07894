/** Requests to the server this page came from. Paths are relative, so it also works behind a path prefix. */

const KEY = "zeroshot.key";

/** What went wrong, in the server's words; `field` names the request field at fault. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly field: string | null = null,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

/** The API key, for this browser tab only. */
export const apiKey = {
  get: (): string => sessionStorage.getItem(KEY) ?? "",
  set: (key: string): void => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

const onUnauthorized = new Set<() => void>();

/** Calls `listener` whenever the server asks for a key. Returns the way to stop that. */
export function whenUnauthorized(listener: () => void): () => void {
  onUnauthorized.add(listener);
  return () => onUnauthorized.delete(listener);
}

export function authorization(): Record<string, string> {
  return apiKey.get() ? { Authorization: `Bearer ${apiKey.get()}` } : {};
}

export function url(path: string): string {
  return new URL(path.replace(/^\//, ""), document.baseURI.replace(/[?#].*$/, "")).href;
}

/** The response, if it is a good one. Throws ApiError otherwise, and DOMException AbortError when `signal` fires. */
export async function send(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = authorization();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(url(path), {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("The server doesn't answer. Is it still running?", 0, "unreachable");
  }
  if (response.ok) return response;
  const error = await readError(response);
  if (response.status === 401) onUnauthorized.forEach((listener) => listener());
  throw error;
}

export async function sendJson<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return (await (await send(path, body, signal)).json()) as T;
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Any of the server's error shapes, or a plain answer of something in between. */
export function errorFromBody(status: number, body: unknown, retryAfter: string | null = null): ApiError {
  const seconds = retryAfter === null || !/^\d+$/.test(retryAfter) ? null : Number(retryAfter);
  const error = (body as { error?: unknown } | null)?.error;
  if (typeof error === "string") return new ApiError(error, status, "error", null, seconds);
  if (error && typeof error === "object") {
    const { message, code, field, param } = error as Record<string, unknown>;
    const at = typeof field === "string" ? field : typeof param === "string" ? param : null;
    return new ApiError(String(message ?? "The request failed."), status, String(code ?? "error"), at, seconds);
  }
  return new ApiError(`The server answered ${status}.`, status, "http_error", null, seconds);
}

async function readError(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  let body: unknown = null;
  try {
    body = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error; // not JSON: a proxy's own page; the status says enough
  }
  return errorFromBody(response.status, body, response.headers.get("retry-after"));
}

/** Drawn here, because the server names the seed that it drew at the end only: a text may be stopped before. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}
