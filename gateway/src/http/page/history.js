// The last ten minutes of each worker and model, as this page saw them.

/** Seconds that are kept, and between two points. */
export const SPAN = 600;
const STEP = 2;
/** A longer silence is a gap in the line, seconds: the page was hidden, or the gateway away. */
export const GAP = 3 * STEP;
/** Most workers and models with a history; 300 points each. */
const MOST = 500;

const series = new Map();
let last = -Infinity;

/** The points of one worker or model: its values with the `time`, in seconds. */
export const points = (name) => series.get(name) ?? [];

/** Takes in what a look at the cluster told: for each name, values by line. */
export function note(time, all) {
  if (time - last < STEP - 0.5) return;
  last = time;
  for (const [name, values] of all) {
    if (!series.has(name) && series.size >= MOST) continue;
    const line = points(name);
    line.push({ time, ...values });
    series.set(name, line);
  }
  for (const [name, line] of series) {
    const old = line.findIndex((point) => point.time > time - SPAN);
    if (old < 0) series.delete(name);
    else line.splice(0, old);
  }
}
