/** One small chart: up to two lines over the last readings, the newest value large. */

import { useState } from "preact/hooks";
import { NUM_POINTS, type Measure, type Point } from "./series";

const WIDTH = 360;
const HEIGHT = 96;

interface Props {
  points: Point[];
  title: string;
  unit: string;
  format: (value: number) => string;
  lines: [Measure, string][];
  /** The scale's top is never below this, so that noise doesn't look like news. */
  atLeast: number;
}

export function Chart({ points, title, unit, format, lines, atLeast }: Props) {
  const [hovered, setHovered] = useState<number | null>(null);
  const top = Math.max(atLeast, ...points.flatMap((point) => lines.map(([measure]) => point[measure] ?? 0)));
  const say = (value: number | null | undefined) => (value === null || value === undefined ? "–" : `${format(value)}${unit}`);
  const valueOf = (measure: Measure) => (hovered !== null ? points[hovered]?.[measure] : latest(points, measure));
  const label = `${title}: ${lines.map(([measure, name]) => `${name} ${say(latest(points, measure))}`).join(", ")}`;
  const hover = (event: PointerEvent & { currentTarget: SVGSVGElement }) => {
    const box = event.currentTarget.getBoundingClientRect();
    const index = Math.round(((event.clientX - box.left) / box.width) * (NUM_POINTS - 1)) - (NUM_POINTS - points.length);
    setHovered(index >= 0 && index < points.length ? index : null);
  };
  return (
    <figure class="chart">
      <figcaption>
        <h2>{title}</h2>
        <span class="chart-ago">{hovered === null ? "" : ago(points, hovered)}</span>
      </figcaption>
      <p class="chart-values">
        {lines.map(([measure, name], index) => (
          <span key={measure} class={index === 0 ? "chart-value" : "chart-value is-second"}>
            <b>{say(valueOf(measure))}</b> {name}
          </span>
        ))}
      </p>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label} onPointerMove={hover} onPointerLeave={() => setHovered(null)}>
        <path class="chart-grid" d={`M0 0.5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}`} />
        {lines.map(([measure], index) => (
          <Line key={measure} points={points} measure={measure} top={top} isSecond={index > 0} />
        ))}
        {hovered !== null && <path class="chart-cursor" d={`M${xOf(hovered, points.length)} 0V${HEIGHT}`} />}
      </svg>
      <p class="chart-scale" aria-hidden="true">
        <span>2 min ago</span>
        <span>top {say(top)}</span>
        <span>now</span>
      </p>
    </figure>
  );
}

function Line({ points, measure, top, isSecond }: { points: Point[]; measure: Measure; top: number; isSecond: boolean }) {
  const line = linePath(points.map((point) => point[measure]), top);
  return (
    <>
      {!isSecond && line.area && <path class="chart-area" d={line.area} />}
      <path class={isSecond ? "chart-line is-second" : "chart-line"} d={line.stroke} />
    </>
  );
}

/** A stroke with gaps where nothing was measured, and the area below it. A point alone becomes a short dash. */
export function linePath(values: (number | null)[], top: number): { stroke: string; area: string } {
  const runs: [number, number][][] = [];
  let run: [number, number][] = [];
  values.forEach((value, index) => {
    if (value === null) {
      run = [];
      return;
    }
    if (!run.length) runs.push(run);
    run.push([xOf(index, values.length), HEIGHT - 1 - (value / top) * (HEIGHT - 2)]);
  });
  const text = ([x, y]: [number, number]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const stroke = runs.map((one) => `M${one.map(text).join("L")}${one.length === 1 ? "h1.5" : ""}`).join("");
  const area = runs.filter((one) => one.length > 1).map((one) => `M${one.map(text).join("L")}V${HEIGHT}H${one[0]![0].toFixed(1)}Z`).join("");
  return { stroke, area };
}

/** The newest point is at the right edge. */
const xOf = (index: number, count: number): number => ((NUM_POINTS - count + index) / (NUM_POINTS - 1)) * WIDTH;

/** The newest value there is: times and hit rates are known only while something runs. */
function latest(points: Point[], measure: Measure): number | null {
  return points.findLast((point) => point[measure] !== null)?.[measure] ?? null;
}

function ago(points: Point[], index: number): string {
  const seconds = Math.round(points.at(-1)!.atS - points[index]!.atS);
  return seconds === 0 ? "now" : `${seconds} s ago`;
}
