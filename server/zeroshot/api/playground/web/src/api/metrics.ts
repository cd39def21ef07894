/** GET /metrics: Prometheus's text format (exposition format 0.0.4), as far as the engine view needs it. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!match) continue;
    const labels: Record<string, string> = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) labels[name!] = unescape(value!);
    samples.push({ name: match[1]!, labels, value: toNumber(match[3]!) });
  }
  return samples;
}

/** The sum over all label sets; null where there is no such metric. */
export function total(samples: Sample[], name: string): number | null {
  const values = samples.filter((sample) => sample.name === name).map((sample) => sample.value);
  return values.length ? values.reduce((sum, value) => sum + value, 0) : null;
}

/** Cumulative bucket counts by upper bound, ascending, summed over all other labels. */
export function buckets(samples: Sample[], name: string): Map<number, number> {
  const counts = new Map<number, number>();
  for (const sample of samples) {
    if (sample.name !== `${name}_bucket` || sample.labels.le === undefined) continue;
    const bound = toNumber(sample.labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + sample.value);
  }
  return new Map([...counts].sort(([a], [b]) => a - b));
}

/**
 * The q-quantile of what was observed between two readings, linear within a bucket as Prometheus's
 * histogram_quantile; null where nothing was.
 */
export function quantile(q: number, before: Map<number, number>, after: Map<number, number>): number | null {
  const counts = [...after].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)] as const);
  const observed = counts.at(-1)?.[1] ?? 0;
  if (observed <= 0) return null;
  let lower = 0;
  let below = 0;
  for (const [bound, count] of counts) {
    if (count >= q * observed) {
      if (bound === Infinity) return lower;
      return lower + (bound - lower) * ((q * observed - below) / (count - below || 1));
    }
    lower = bound;
    below = count;
  }
  return lower;
}

function toNumber(text: string): number {
  return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
}

function unescape(value: string): string {
  return value.replace(/\\(.)/g, (_, char: string) => (char === "n" ? "\n" : char));
}
