/** A request with `stream: true`, and the events of its answer. */

import { errorFromBody, send } from "./http";
import { events } from "./sse";

/** The events as they come, up to `[DONE]`. Throws ApiError for an error event and for a stream that breaks off. */
export async function* streamJson<T>(path: string, body: object, signal: AbortSignal): AsyncGenerator<T> {
  const response = await send(path, { ...body, stream: true }, signal);
  if (!response.body) throw errorFromBody(response.status, null);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw errorFromBody(response.status, event);
    yield event;
  }
  throw errorFromBody(response.status, { error: { message: "The stream broke off.", code: "stream_broken" } });
}
