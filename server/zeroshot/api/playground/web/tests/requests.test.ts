import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { errorFromBody } from "../src/api/http";
import { curl, openai, python, pythonLiteral, shellQuoted } from "../src/api/snippets";
import type { Explanation, TaskDetails } from "../src/api/tasks";
import { defaultSettings, toBody } from "../src/complete/settings";
import { fieldsOf, initialValues, toBody as toTaskBody } from "../src/tasks/form";
import { openaiCall } from "../src/tasks/openai";

const TASK: TaskDetails = {
  name: "classify",
  summary: "",
  kind: "label",
  version: "1",
  prompt_file: { template: "{text}", inputs: { text: { type: "string" }, labels: { type: "list" } }, output: { kind: "label" } },
  example: { text: "Hi.", labels: ["a", "b"] },
  request_schema: {
    required: ["text", "labels"],
    properties: {
      text: { type: "string", maxLength: 4000 },
      labels: { type: "array", items: { type: "string" } },
      calibration: { enum: ["none", "pmi_dc"], default: "none", type: "string" },
      temperature: { type: "number", minimum: 0, default: 0 },
      seed: { anyOf: [{ type: "integer", minimum: 0 }, { type: "null" }], default: null },
      truncate: { type: "boolean", default: false },
      explain: { type: "boolean", default: false },
      stream: { type: "boolean", default: false },
    },
  },
};

describe("a task's form", () => {
  const fields = fieldsOf(TASK);

  it("has a control for each type", () => {
    expect(fields.map(({ name, control }) => [name, control])).toEqual([
      ["text", "text"], ["labels", "list"], ["calibration", "choice"], ["temperature", "number"], ["seed", "integer"], ["truncate", "switch"],
    ]);
  });

  it("sends the example as it stands, and no defaults", () => {
    expect(toTaskBody(fields, initialValues(TASK))).toEqual({ text: "Hi.", labels: ["a", "b"] });
  });

  it("begins with a switch as the example has it", () => {
    expect(initialValues({ ...TASK, example: { truncate: true } }).truncate).toBe(true);
    expect(initialValues(TASK).truncate).toBe(false);
  });

  it("sends what was changed, in the schema's types", () => {
    const values = { ...initialValues(TASK), temperature: "0.5", seed: "7", truncate: true, calibration: "pmi_dc", labels: "x\n\ny\n" };
    expect(toTaskBody(fields, values)).toEqual({ text: "Hi.", labels: ["x", "y"], calibration: "pmi_dc", temperature: 0.5, seed: 7, truncate: true });
  });

  it("leaves what is no number for the server to refuse", () => {
    expect(toTaskBody(fields, { ...initialValues(TASK), temperature: "hot" }).temperature).toBe("hot");
  });
});

describe("the sampling settings", () => {
  it("leave out what changes nothing", () => {
    const settings = defaultSettings();
    expect(toBody("x", settings)).toEqual({ prompt: "x", temperature: 0.8, top_k: 40, max_tokens: 80 });
  });

  it("send everything that was set", () => {
    const settings = { ...defaultSettings(), seed: "5", stop: ["\\n", "END"], stopTokenIds: "1, 2", biases: [{ token_id: 9, token: " x", bias: -3 }], ignoreEos: true };
    settings.numbers.temperature = "0";
    expect(toBody("x", settings)).toMatchObject({ temperature: 0, seed: 5, stop: ["\n", "END"], stop_token_ids: [1, 2], logit_bias: { "9": -3 }, ignore_eos: true });
  });

  it("never round a seed", () => {
    expect(toBody("x", { ...defaultSettings(), seed: "9223372036854775807" }).seed).toBe("9223372036854775807");
  });
});

describe("snippets", () => {
  const nasty = `it's "quoted" \\ $HOME \`id\`\n${"é"}`;
  const call = { path: "generate", body: { prompt: nasty, stream: true, stop: null } };
  const target = { origin: "http://127.0.0.1:8000", needsKey: false };

  it("survive a shell", () => {
    expect(execFileSync("sh", ["-c", `printf %s ${shellQuoted(nasty)}`], { encoding: "utf8" })).toBe(nasty);
    expect(curl(call, target)).toContain(shellQuoted(JSON.stringify(call.body)));
  });

  it("write Python's words", () => {
    expect(pythonLiteral({ a: [true, false, null, 1.5, 'x"'] })).toBe('{"a": [True, False, None, 1.5, "x\\""]}');
  });

  it("put what OpenAI doesn't know into extra_body", () => {
    const text = openai({ model: "demo", prompt: "x", settings: { temperature: 0, top_k: 40 } }, target);
    expect(text).toContain("temperature=0,");
    expect(text).toContain('extra_body={"top_k": 40},');
  });

  describe("for the openai client", () => {
    const callOf = (decoding: Record<string, unknown>) => {
      const explain = { prompt: "x", parts: [], prompt_tokens: 1, cached_tokens: 0, truncated: null, seed: 7, decoding } satisfies Explanation;
      const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2, cached_tokens: 0 };
      return openaiCall({ ...TASK, kind: "text" }, { task: "t", version: "1", output: "y", usage, explain }, "demo");
    };

    it("ask for what the text was held to, and not for what only a task keeps", () => {
      const regex = callOf({ max_tokens: 8, keep: "first_line", grammar: { kind: "regex", source: "[0-9]+", field: "" } });
      expect(regex?.settings).toEqual({ max_tokens: 8, seed: 7, structured_outputs: { regex: "[0-9]+" } });
      const json = callOf({ grammar: { kind: "json_schema", source: '{"type": "integer"}' } });
      expect(json?.settings).toEqual({ seed: 7, structured_outputs: { json: { type: "integer" } } });
    });

    it("are not there for beam search", () => {
      expect(callOf({ beams: { num_beams: 3 } })).toBeNull();
    });
  });

  it("name the key, and never hold it", () => {
    for (const text of [curl(call, { ...target, needsKey: true }), python(call, { ...target, needsKey: true })]) {
      expect(text).toContain("ZEROSHOT_API_KEY");
    }
  });
});

describe("errors", () => {
  it("are read in each of the server's shapes", () => {
    expect(errorFromBody(422, { error: { code: "validation_error", message: "m", field: "text" } })).toMatchObject({ message: "m", field: "text", code: "validation_error" });
    expect(errorFromBody(429, { error: { message: "m", type: "t", param: "n", code: null } }, "3")).toMatchObject({ field: "n", retryAfterS: 3 });
    expect(errorFromBody(424, { error: "m", error_type: "t" })).toMatchObject({ message: "m" });
    expect(errorFromBody(502, null).message).toContain("502");
  });
});
