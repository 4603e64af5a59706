// A line over ten minutes: what it is, its newest value, its highest, and the value under the pointer.

import { element, number } from "./dom.js";
import { GAP, SPAN } from "./history.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 48];

function shape(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The pieces of a line, cut where nothing is known. */
export function pieces(points) {
  const all = [];
  let before = -Infinity;
  for (const point of points) {
    if (point.value === null || point.value === undefined) continue;
    if (point.time - before > GAP) all.push([]);
    all.at(-1).push(point);
    before = point.time;
  }
  return all;
}

export class Chart {
  /** `unit` follows the numbers. */
  constructor(title, unit = "") {
    this.unit = unit;
    this.node = element("figure", "chart");
    this.now = element("strong");
    this.said = element("small");
    const caption = element("figcaption");
    caption.append(element("span", "", title), this.now);
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    svg.append(this.area, this.line);
    const axis = element("p", "axis");
    axis.append(element("span", "", "10 min ago"), this.said, element("span", "", "now"));
    this.node.append(caption, svg, axis);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      this.pointed = (event.clientX - box.left) / box.width;
      this.tell();
    });
    svg.addEventListener("pointerleave", () => {
      this.pointed = undefined;
      this.tell();
    });
  }

  text(value) {
    return `${number(value)}${this.unit}`;
  }

  /** Draws `points`, each with a `time` and a `value`, up to `time`; the line's top is `most` at least. */
  draw(time, points, most = 0) {
    this.time = time;
    this.pieces = pieces(points);
    const known = this.pieces.flat();
    this.top = Math.max(...known.map(({ value }) => value), most, 0);
    const x = (point) => (WIDTH - ((time - point.time) / SPAN) * WIDTH).toFixed(1);
    const y = (point) => (HEIGHT - 1 - (point.value / (this.top || 1)) * (HEIGHT - 3)).toFixed(1);
    const line = (piece) => `M${piece.map((point) => `${x(point)},${y(point)}`).join("L")}h.1`;
    this.line.setAttribute("d", this.pieces.map(line).join(""));
    const area = (piece) => `${line(piece)}V${HEIGHT}H${x(piece[0])}Z`;
    this.area.setAttribute("d", this.pieces.map(area).join(""));
    const newest = points.at(-1)?.value;
    this.now.textContent = newest === null || newest === undefined ? "–" : this.text(newest);
    this.tell();
  }

  tell() {
    const known = this.pieces?.flat() ?? [];
    if (!known.length) {
      this.said.textContent = "nothing yet";
    } else if (this.pointed === undefined) {
      this.said.textContent = `most ${this.text(Math.max(...known.map(({ value }) => value)))}`;
    } else {
      const at = this.time - (1 - this.pointed) * SPAN;
      const near = (a, b) => (Math.abs(a.time - at) < Math.abs(b.time - at) ? a : b);
      const point = known.reduce(near);
      this.said.textContent = `${this.text(point.value)}, ${ago(this.time - point.time)}`;
    }
  }
}

const ago = (seconds) => (seconds < 60 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`);
