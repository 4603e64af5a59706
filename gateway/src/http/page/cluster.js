// The live view: asked for once a second while the page is seen and not otherwise. Numbers that are old are dimmed.

import { pieces } from "./chart.js";
import * as detail from "./detail.js";
import { $, element, number, plural, sum } from "./dom.js";
import { Refusal } from "./gateway.js";
import { note, points } from "./history.js";
import * as rows from "./rows.js";

const EVERY = 1000;
/** An answer that takes longer is none, milliseconds. */
const PATIENCE = 5000;
/** Numbers that are older are dimmed, seconds. */
const STALE = 3.5;
/** Seconds of the small graph. */
const MINUTE = 60;

const clock = () => performance.now() / 1000;

/** The last look that succeeded, and when. */
let newest = null;
let seen = -Infinity;

/** Looks at the cluster from now on. `changed` is called when other models are there than before. */
export function watch(ask, changed) {
  let timer, asking, known;

  async function look() {
    clearTimeout(timer);
    asking?.abort();
    if (document.hidden) return;
    const mine = (asking = new AbortController());
    const late = setTimeout(() => mine.abort(new Error("The gateway does not answer.")), PATIENCE);
    let models = "";
    try {
      const response = await ask("cluster", { signal: mine.signal });
      if (!response.ok) throw await Refusal.of(response);
      models = show(await response.json());
    } catch (error) {
      if (mine !== asking) return;
      lost(error instanceof TypeError ? "The gateway cannot be reached." : error.message);
    } finally {
      clearTimeout(late);
    }
    if (mine !== asking) return;
    // After a silence too: the gateway may be another one.
    if (known !== undefined && models && models !== known) changed();
    known = models;
    timer = setTimeout(look, EVERY);
  }

  document.addEventListener("visibilitychange", look);
  setInterval(dim, EVERY / 2);
  addEventListener("hashchange", () => newest && detail.show(newest, clock()));
  look();
  return { look, linked: () => detail.wanted() !== null };
}

function dim() {
  const age = clock() - seen;
  const stale = age > STALE && newest !== null;
  $("cluster").dataset.stale = String(stale);
  if (stale) pulse("lost", `${Math.round(age)} s old`);
}

function lost(message) {
  if (newest === null) pulse("lost", "no news");
  trouble(message);
}

function trouble(message) {
  $("trouble").textContent = message;
  $("trouble").hidden = !message;
}

function pulse(state, text) {
  $("fresher").dataset.state = state;
  $("fresher").textContent = text;
}

/** Shows the cluster, and returns the names of its models, as a text. */
function show(cluster) {
  const names = (is) => JSON.stringify(cluster.models.filter(is).map((one) => one.model));
  if (!cluster.workers) {
    lost("Your API key may not see the cluster.");
    return names((one) => one.ready);
  }
  if (cluster.coordinator) pulse("live", "live");
  else pulse("old", "no coordinator");
  trouble(cluster.coordinator ? "" : "No coordinator is heard: this is what the gateway knows by itself.");
  [newest, seen] = [cluster, clock()];
  dim();
  record(cluster, seen);
  summary(cluster);
  rows.models(cluster.models);
  rows.workers(cluster.workers, cluster.lost);
  detail.show(cluster, seen);
  $("about").textContent =
    `${cluster.gateway} · ${cluster.version} · ${plural(cluster.in_flight, "request")} here` +
    (cluster.coordinator ? ` · coordinator ${cluster.coordinator}` : "");
  return names((one) => one.workers);
}

/** Tokens per second of these workers; null if none tells them. */
function rate(workers) {
  const told = workers.filter((one) => one.tokens_per_second !== null);
  return told.length || !workers.length ? sum(told, (one) => one.tokens_per_second) : null;
}

function record({ workers, models }, time) {
  const all = workers.map((one) => [`worker:${one.worker}`, {
    active: one.active,
    queued: one.queued,
    rate: one.tokens_per_second,
    ttft: one.ttft_ms?.p50 ?? null,
    kv: one.kv_used === null ? null : one.kv_used * 100,
  }]);
  note(time, [["cluster", { rate: rate(workers) }], ...all, ...models.map((one) => [`model:${one.model}`, {
    active: one.slots - one.free,
    waiting: one.queued + (one.waiting ?? 0),
    workers: one.workers,
    rate: rate(workers.filter((worker) => worker.models.includes(one.model))),
  }])]);
}

function summary(cluster) {
  const { workers } = cluster;
  const ready = workers.filter((worker) => worker.state === "ready");
  const [slots, active] = [sum(ready, (one) => one.slots), sum(ready, (one) => one.active)];
  of("workers", ready.length, workers.length);
  of("slots", active, slots);
  $("used").style.width = `${slots ? Math.min(100, (active / slots) * 100) : 0}%`;
  // At all gateways, as the coordinator heard it within a second; at this one, as it is.
  const waiting = Math.max(cluster.waiting, sum(cluster.models, (one) => one.waiting || 0));
  $("waiting").textContent = waiting + sum(workers, (one) => one.queued);
  const now = rate(workers);
  $("rate").textContent = now === null ? "–" : number(now);
  graph(seen);
}

/** A number out of another. */
function of(id, some, all) {
  $(id).replaceChildren(String(some), element("small", "", ` of ${all}`));
}

/** The last minute of all tokens. */
function graph(time) {
  const line = points("cluster").map((point) => ({ time: point.time, value: point.rate }));
  const minute = pieces(line.filter((point) => point.time > time - MINUTE));
  const top = Math.max(1, ...minute.flat().map(({ value }) => value)) * 1.1;
  const x = (point) => (120 - ((time - point.time) / MINUTE) * 120).toFixed(2);
  const drawn = minute.map((piece) => piece.map((point) => `${x(point)},${(32 - (point.value / top) * 31).toFixed(2)}`).join("L"));
  $("line").setAttribute("d", drawn.map((piece) => `M${piece}`).join(""));
  $("area").setAttribute("d", drawn.map((piece, at) => `M${x(minute[at][0])},32L${piece}V32Z`).join(""));
}
