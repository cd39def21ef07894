/** Server-sent events out of a response body (WHATWG HTML, section 9.2.6), the `data` field only. */

/** Yields each event's data. Chunks may end anywhere, also within a character or between \r and \n. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Leaving early closes the connection, by which the server knows that nobody reads any more.
    await reader.cancel().catch(() => undefined);
  }
}

export class EventParser {
  private rest = "";
  private data: string[] = [];

  /** The events that `text` completes. An event that the stream ends in the middle of is dropped, as specified. */
  *push(text: string): Generator<string> {
    this.rest += text;
    for (;;) {
      const end = this.rest.search(/\r|\n/);
      if (end < 0 || (this.rest[end] === "\r" && end === this.rest.length - 1)) return;
      const line = this.rest.slice(0, end);
      this.rest = this.rest.slice(end + (this.rest.startsWith("\r\n", end) ? 2 : 1));
      const event = this.line(line);
      if (event !== null) yield event;
    }
  }

  private line(line: string): string | null {
    if (line === "") {
      const event = this.data.length ? this.data.join("\n") : null;
      this.data = [];
      return event;
    }
    if (line.startsWith("data:")) this.data.push(line.slice(line[5] === " " ? 6 : 5));
    return null;
  }
}
