import { describe, expect, it } from "vitest";
import type { ScoredToken } from "../src/api/generate";
import type { InputDeclaration } from "../src/api/tasks";
import { loadHistory, saveHistory, type Run } from "../src/complete/history";
import { defaultSettings } from "../src/complete/settings";
import { linePath } from "../src/engine/Chart";
import { parseRoute } from "../src/route";
import { cachedParts, filledParts, templateOf, templateParts } from "../src/tasks/prompt";
import { append, fork, newTree, summarize, textOf } from "../src/think/tree";

const token = (text: string, logprob = -1, rank = 1): ScoredToken => ({
  token_id: text.charCodeAt(0), token: text, logprob, rank, top: [{ token_id: 88, token: "X", logprob: -2 }],
});
const spell = (tokens: ScoredToken[]) => tokens.map((one) => one.token).join("");

describe("a tree of texts", () => {
  const root = newTree([..."abcdef"].map((char) => token(char)));

  it("keeps what came before the fork, and puts the alternative in its place", () => {
    const tree = append(fork(root, 2, { token_id: 88, token: "X", logprob: -2 }), 1, [token("y")]);
    expect(spell(textOf(tree, 1))).toBe("abXy");
    expect(spell(textOf(tree, 0))).toBe("abcdef");
    expect(tree.current).toBe(1);
  });

  it("forks shared text from the branch that owns it", () => {
    const first = append(fork(root, 3, { token_id: 88, token: "X", logprob: -2 }), 1, [token("y")]);
    const second = fork(first, 1, { token_id: 89, token: "Z", logprob: -3 });
    expect(second.branches[2]!.parent).toBe(0);
    expect(spell(textOf(second, 2))).toBe("aZ");
    const third = fork(first, 4, { token_id: 89, token: "Z", logprob: -3 });
    expect(third.branches[2]!.parent).toBe(1);
    expect(spell(textOf(third, 2))).toBe("abcXZ");
  });

  it("makes a sibling of another choice in the same place", () => {
    const twice = fork(fork(root, 3, { token_id: 88, token: "X", logprob: -2 }), 3, { token_id: 89, token: "Z", logprob: -3 });
    expect(twice.branches.map(({ parent }) => parent)).toEqual([null, 0, 0]);
    expect(spell(textOf(twice, 2))).toBe("abcZ");
  });

  it("knows the alternative's rank among those it was chosen from", () => {
    expect(fork(root, 0, { token_id: 88, token: "X", logprob: -2 }).branches[1]!.tokens[0]!.rank).toBe(1);
  });

  it("has no perplexity without tokens", () => {
    expect(summarize([]).perplexity).toBeNull();
    expect(summarize([token("a", Math.log(0.5)), token("b", Math.log(0.125))]).perplexity).toBeCloseTo(4);
  });
});

describe("prompts", () => {
  const file = { template: "{a} and {b}{{x}}", inputs: { a: { type: "list" }, b: { type: "string" } }, output: { kind: "text" as const } };

  it("are cut where the server cuts them", () => {
    expect(templateParts("x {{y}} {field}: {Not}")).toEqual([
      { field: null, text: "x {y} " }, { field: "field", text: "field" }, { field: null, text: ": {Not}" },
    ]);
  });

  it("never read a value as a template", () => {
    const text = filledParts(file, file.template, { a: "1\n{b}", b: "" }).map((part) => part.text).join("");
    expect(text).toBe("1, {b} and b{x}");
  });

  it("read as the server writes values", () => {
    const read = (input: InputDeclaration, value: string | boolean) =>
      filledParts({ ...file, inputs: { a: input } }, "{a}", { a: value })[0]!.text;
    expect(read({ type: "boolean" }, true)).toBe("yes");
    expect(read({ type: "boolean" }, false)).toBe("no");
    expect(read({ type: "list", separator: " / " }, "x\n\ny\n")).toBe("x / y");
    expect(read({ type: "string" }, "x\n\ny\n")).toBe("x\n\ny\n");
  });

  it("begin with their examples", () => {
    expect(templateOf({ ...file, examples: ["{literal}"] })).toBe("{{literal}}\n{a} and {b}{{x}}");
  });

  it("say what came from the cache, to the character", () => {
    const parts = [{ field: null, text: "ab " , tokens: 1 }, { field: "a", text: "cd", tokens: 1 }];
    const explanation = { prompt: "ab cd", parts, prompt_tokens: 3, cached_tokens: 2, truncated: null };
    expect(cachedParts(explanation, ["ab", " c", "d"])).toEqual([
      { field: null, text: "ab ", isCached: true }, { field: "a", text: "c", isCached: true }, { field: "a", text: "d", isCached: false },
    ]);
    expect(cachedParts(explanation, ["bytes:\\xe2"]).some((part) => part.isCached)).toBe(false);
  });
});

describe("history", () => {
  const run = (at: number): Run => ({ at, prompt: "p", settings: defaultSettings(), texts: ["t"], seed: 1 });

  /** A browser's storage with room for so many characters. */
  function storage(room: number): Storage {
    const held = new Map<string, string>();
    return {
      getItem: (key: string) => held.get(key) ?? null,
      setItem: (key: string, value: string) => {
        if (value.length > room) throw new DOMException("full", "QuotaExceededError");
        held.set(key, value);
      },
    } as Storage;
  }

  it("comes back as it was saved", () => {
    const place = storage(1e6);
    saveHistory([run(2), run(1)], place);
    expect(loadHistory(place)).toEqual([run(2), run(1)]);
  });

  it("gives up the oldest when the room is full", () => {
    const place = storage(3 * JSON.stringify(run(1)).length);
    const kept = saveHistory([5, 4, 3, 2, 1].map(run), place);
    expect(kept.map(({ at }) => at)).toEqual([5, 4]);
    expect(loadHistory(place)).toEqual(kept);
  });

  it("starts anew from what it can't read", () => {
    const place = storage(1e6);
    for (const text of ["{", "{}", '[{"at": "x"}]', "[null]"]) {
      place.setItem("zeroshot.history", text);
      expect(loadHistory(place)).toEqual([]);
    }
  });
});

describe("routes", () => {
  it("name a view, and a task where there is one", () => {
    expect(parseRoute("")).toEqual({ view: "tasks", name: null });
    expect(parseRoute("#/tasks/a%20b")).toEqual({ view: "tasks", name: "a b" });
    expect(parseRoute("#/engine")).toEqual({ view: "engine", name: null });
    expect(parseRoute("#/nonsense")).toEqual({ view: "tasks", name: null });
  });
});

describe("a chart's line", () => {
  it("has gaps where nothing was measured", () => {
    const { stroke, area } = linePath([1, 2, null, 3], 3);
    expect(stroke.match(/M/g)).toHaveLength(2);
    expect(area.match(/Z/g)).toHaveLength(1);
  });
});
