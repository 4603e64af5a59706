// The view of one worker or one model: what it is, and its lines of the last ten minutes. Its address is the part behind `#`.

import { Chart } from "./chart.js";
import { $, element, plural } from "./dom.js";
import { points } from "./history.js";
import { SILENT, state } from "./rows.js";

const LINES = {
  worker: [
    ["active", "Slots in use", ""],
    ["rate", "Tokens per second", ""],
    ["queued", "Waiting", ""],
    ["ttft", "Time to the first token", " ms"],
    ["kv", "KV cache in use", " %"],
  ],
  model: [
    ["active", "Slots in use", ""],
    ["rate", "Tokens per second", ""],
    ["waiting", "Waiting", ""],
    ["workers", "Workers ready", ""],
  ],
};

let shown = { key: "", charts: [] };

/** What the address names, if it names a worker or a model. */
export function wanted() {
  const [, kind, name] = /^#(worker|model)=(.+)$/.exec(location.hash) ?? [];
  try {
    return kind ? { kind, name: decodeURIComponent(name), key: `${kind}:${decodeURIComponent(name)}` } : null;
  } catch {
    return null;
  }
}

/** Shows what the address names, or the cluster as a whole. */
export function show(cluster, time) {
  const want = wanted();
  const here = $("cluster").contains(document.activeElement);
  $("whole").hidden = Boolean(want);
  $("detail").hidden = !want;
  if (!want) {
    shown = { key: "", charts: [] };
    return;
  }
  if (shown.key !== want.key) begin(want, here);
  const one = want.kind === "worker" ? worker(cluster, want.name) : model(cluster, want.name);
  $("what").replaceChildren(...one.facts.filter(([, text]) => text).flatMap(([name, text]) => [
    element("dt", "", name), element("dd", "", text),
  ]));
  $("state").replaceWith(Object.assign(state(one.state), { id: "state" }));
  const line = points(want.key);
  for (const [field, chart] of shown.charts) {
    const values = line.map((point) => ({ time: point.time, value: point[field] }));
    chart.node.hidden = field === "kv" && values.every(({ value }) => value === null);
    chart.draw(time, values, field === "active" ? one.slots : 0);
  }
}

function begin(want, here) {
  const charts = LINES[want.kind].map(([field, title, unit]) => [field, new Chart(title, unit)]);
  shown = { key: want.key, charts };
  $("kind").textContent = want.kind === "worker" ? "Worker" : "Model";
  $("name").textContent = want.name;
  $("charts").replaceChildren(...charts.map(([, chart]) => chart.node));
  // From the row that was chosen, which is out of sight now; but nobody's typing is interrupted.
  if (here) $("back").focus({ preventScroll: true });
}

function worker(cluster, name) {
  const one = cluster.workers.find((each) => each.worker === name);
  const gone = cluster.lost.find((each) => each.worker === name);
  if (!one) {
    const facts = gone ? [["Models", gone.models.join(", ")], ["Host", gone.host], ["Silent for", SILENT(gone)],
      ["Streams", `${gone.moved} moved, ${gone.failed} failed`]] : [];
    return { state: gone ? "lost" : "not there", slots: 0, facts };
  }
  const facts = [
    ["Models", one.models.join(", ")],
    ["Engine", one.engine],
    ["Host", one.host],
    ["Version", one.version],
    ["Slots", one.slots_from ? `${one.slots}, from: ${one.slots_from}` : String(one.slots)],
  ];
  return { state: one.state, slots: one.slots, facts };
}

function model(cluster, name) {
  const one = cluster.models.find((each) => each.model === name);
  const workers = cluster.workers.filter((each) => each.models.includes(name)).map((each) => each.worker);
  const wait = one?.estimated_wait_ms;
  const facts = [
    ["Workers", workers.join(", ")],
    ["Slots", one && `${one.free} of ${plural(one.slots, "slot")} free`],
    ["A new request waits", wait ? `about ${Math.round(wait)} ms` : ""],
  ];
  return { state: one?.workers ? "ready" : "not there", slots: one?.slots ?? 0, facts };
}
