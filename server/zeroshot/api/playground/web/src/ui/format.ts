/** Numbers and tokens as people read them. */

export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<0.1%";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}%`;
}

/** Three significant digits, without an exponent up to a million. */
export function compact(value: number): string {
  if (!Number.isFinite(value)) return "∞";
  if (value >= 1e6) return value.toExponential(1).replace("e+", "e");
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value.toPrecision(3).replace(/\.?0+$/, "");
}

export function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** A token where it must be seen whole: spaces and line breaks as signs. */
export function visible(token: string): string {
  return token.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "(empty)";
}
