import { describe, expect, it } from "vitest";
import { buckets, parseMetrics, quantile, total } from "../src/api/metrics";
import { read, toPoint } from "../src/engine/series";

const TEXT = `# HELP vllm:num_requests_running Choices in the running batch.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="demo"} 3.0
vllm:num_requests_running{model_name="a \\"quoted\\" \\\\ name\\n"} 1
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="demo"} 2.0
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="demo"} 4.0
vllm:time_to_first_token_seconds_bucket{le="0.01",model_name="demo"} 0.0
vllm:generation_tokens_total{model_name="demo"} 1e3 1700000000
`;

describe("parseMetrics", () => {
  it("reads names, labels and values", () => {
    const samples = parseMetrics(TEXT);
    expect(samples).toHaveLength(6);
    expect(total(samples, "vllm:num_requests_running")).toBe(4);
    expect(samples[1]!.labels.model_name).toBe('a "quoted" \\ name\n');
    expect(total(samples, "vllm:generation_tokens_total")).toBe(1000);
  });

  it("tells zero from nothing", () => {
    expect(total(parseMetrics("x 0\n"), "x")).toBe(0);
    expect(total(parseMetrics("x 0\n"), "y")).toBeNull();
  });

  it("orders buckets by their bound", () => {
    expect([...buckets(parseMetrics(TEXT), "vllm:time_to_first_token_seconds")]).toEqual([[0.01, 0], [0.1, 2], [Infinity, 4]]);
  });
});

describe("quantile", () => {
  const none = new Map([[1, 0], [2, 0], [Infinity, 0]]);

  it("is linear within a bucket", () => {
    expect(quantile(0.5, none, new Map([[1, 0], [2, 10], [Infinity, 10]]))).toBeCloseTo(1.5);
    expect(quantile(0.5, none, new Map([[1, 5], [2, 10], [Infinity, 10]]))).toBeCloseTo(1);
  });

  it("sees only what came since the reading before", () => {
    const before = new Map([[1, 100], [2, 100], [Infinity, 100]]);
    expect(quantile(0.5, before, new Map([[1, 100], [2, 104], [Infinity, 104]]))).toBeCloseTo(1.5);
    expect(quantile(0.5, before, before)).toBeNull();
  });

  it("has no value above the last bound", () => {
    expect(quantile(0.5, none, new Map([[1, 0], [2, 0], [Infinity, 9]]))).toBe(2);
  });
});

describe("toPoint", () => {
  const at = (seconds: number, generated: number, read_: number, hits: number) =>
    read(`vllm:generation_tokens_total ${generated}\nvllm:prompt_tokens_total ${read_}\nvllm:prefix_cache_queries_total ${read_}\nvllm:prefix_cache_hits_total ${hits}\n`, seconds);

  it("makes rates of counters", () => {
    const point = toPoint(at(10, 100, 50, 0), at(12, 300, 90, 30));
    expect(point.generationPerS).toBe(100);
    expect(point.promptPerS).toBe(20);
    expect(point.prefixHitRate).toBe(0.75);
  });

  it("survives a restart of the engine, whose counters begin anew", () => {
    expect(toPoint(at(10, 5000, 0, 0), at(11, 40, 0, 0)).generationPerS).toBe(40);
  });

  it("says nothing where nothing was measured", () => {
    const point = toPoint(null, at(1, 1, 1, 1));
    expect(point.generationPerS).toBeNull();
    expect(toPoint(at(1, 1, 1, 1), at(2, 1, 1, 1)).prefixHitRate).toBeNull();
    expect(point.running).toBeNull();
  });
});
