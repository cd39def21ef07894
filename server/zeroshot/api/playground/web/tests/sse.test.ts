import { describe, expect, it } from "vitest";
import { EventParser, events } from "../src/api/sse";

const STREAM = 'data: {"text": "é"}\n\n: a comment\ndata: two\r\ndata: lines\r\n\r\nid: 7\ndata:[DONE]\n\n';
const EVENTS = ['{"text": "é"}', "two\nlines", "[DONE]"];

function streamOf(chunks: Uint8Array[], onCancel = () => {}): ReadableStream<Uint8Array> {
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks.shift();
      if (chunk) controller.enqueue(chunk);
      else controller.close();
    },
    cancel: onCancel,
  });
}

describe("events", () => {
  it("gives the same events wherever the chunks end, also within a character", async () => {
    const bytes = new TextEncoder().encode(STREAM);
    for (let size = 1; size <= bytes.length; size++) {
      const chunks = [];
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.slice(at, at + size));
      const found = [];
      for await (const event of events(streamOf(chunks))) found.push(event);
      expect(found).toEqual(EVENTS);
    }
  });

  it("closes the connection when its reader leaves early", async () => {
    let isCancelled = false;
    const chunk = new TextEncoder().encode("data: 1\n\n");
    const stream = streamOf([chunk, chunk, chunk], () => (isCancelled = true));
    for await (const event of events(stream)) {
      expect(event).toBe("1");
      break;
    }
    expect(isCancelled).toBe(true);
  });
});

describe("EventParser", () => {
  it("drops an event that never ends", () => {
    expect([...new EventParser().push("data: whole\n\ndata: half\n")]).toEqual(["whole"]);
  });

  it("keeps all but the first space", () => {
    expect([...new EventParser().push("data:  two spaces\n\n")]).toEqual([" two spaces"]);
  });
});
