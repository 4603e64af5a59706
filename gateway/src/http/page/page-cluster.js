// The live view: workers, slots, tokens per second and who waits, asked for once a second while the
// page is seen and not otherwise.

const EVERY = 1000;
/** Points of the graph: a minute. */
const POINTS = 60;

const $ = (id) => document.getElementById(id);

function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

const number = (value) => (value >= 100 ? Math.round(value).toLocaleString() : value.toFixed(value ? 1 : 0));
const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);
const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** Looks at the cluster from now on. `changed` is called when other models are there than before. */
export function watch(ask, changed) {
  let timer, asking, known;
  const rates = [];

  async function look() {
    clearTimeout(timer);
    asking?.abort();
    if (document.hidden) return;
    const mine = (asking = new AbortController());
    try {
      const response = await ask("cluster", { signal: mine.signal });
      if (!response.ok) throw new Error(await refusal(response));
      show(await response.json(), rates);
    } catch (error) {
      if (mine.signal.aborted) return;
      lost(error instanceof TypeError ? "The gateway cannot be reached." : error.message);
    }
    if (mine.signal.aborted) return;
    const names = $("list").dataset.models;
    if (known !== undefined && names !== known) changed();
    known = names;
    timer = setTimeout(look, EVERY);
  }

  document.addEventListener("visibilitychange", look);
  look();
  return { look };
}

async function refusal(response) {
  if (response.status === 401) return "This gateway shows its cluster to those with an API key.";
  const text = await response.text().catch(() => "");
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `The gateway answered with status ${response.status}.`;
  }
}

function lost(message) {
  pulse("lost", "no news");
  $("trouble").textContent = message;
  $("trouble").hidden = false;
}

function pulse(state, text) {
  $("fresher").dataset.state = state;
  $("fresher").textContent = text;
}

function show(cluster, rates) {
  const { workers } = cluster;
  if (!workers) {
    lost("Your API key may not see the cluster.");
    $("list").dataset.models = JSON.stringify(cluster.models.filter((one) => one.ready).map((one) => one.model));
    return;
  }
  const ready = workers.filter((worker) => worker.state === "ready");
  if (cluster.coordinator) {
    pulse("live", "live");
    $("trouble").hidden = true;
  } else {
    pulse("old", "no coordinator");
    $("trouble").textContent = "No coordinator is heard: this is what the gateway knows by itself.";
    $("trouble").hidden = false;
  }
  const [slots, active] = [sum(ready, (one) => one.slots), sum(ready, (one) => one.active)];
  of("workers", ready.length, workers.length);
  of("slots", active, slots);
  $("used").style.width = `${slots ? Math.min(100, (active / slots) * 100) : 0}%`;
  // At all gateways, as the coordinator heard it within a second; at this one, as it is.
  const waiting = Math.max(cluster.waiting, sum(cluster.models, (one) => one.waiting || 0));
  $("waiting").textContent = waiting + sum(workers, (one) => one.queued);
  const told = workers.filter((worker) => worker.tokens_per_second !== null);
  const rate = sum(told, (one) => one.tokens_per_second);
  $("rate").textContent = told.length || !workers.length ? number(rate) : "–";
  rates.push(rate);
  rates.splice(0, rates.length - POINTS);
  graph(rates);
  list(workers, cluster.lost);
  $("list").dataset.models = JSON.stringify(cluster.models.filter((one) => one.workers).map((one) => one.model));
  $("about").textContent =
    `${cluster.gateway} · ${cluster.version} · ${plural(cluster.in_flight, "request")} here` +
    (cluster.coordinator ? ` · coordinator ${cluster.coordinator}` : "");
}

/** A number out of another. */
function of(id, some, all) {
  $(id).replaceChildren(String(some), element("small", "", ` of ${all}`));
}

function graph(rates) {
  const top = Math.max(1, ...rates) * 1.1;
  const step = 120 / (POINTS - 1);
  const begin = 120 - (rates.length - 1) * step;
  const points = rates.map((rate, at) => `${(begin + at * step).toFixed(2)},${(32 - (rate / top) * 31).toFixed(2)}`);
  $("line").setAttribute("d", `M${points.join("L")}`);
  $("area").setAttribute("d", `M${begin.toFixed(2)},32L${points.join("L")}L120,32Z`);
}

function list(workers, gone) {
  if (!workers.length && !gone.length) {
    $("list").replaceChildren(element("li", "nobody", "No worker is there."));
    return;
  }
  $("list").replaceChildren(...workers.map(worker), ...gone.map(lostWorker));
}

/** A worker that was lost lately, and what became of its streams. */
function lostWorker(one) {
  const item = document.createElement("li");
  item.dataset.lost = one.worker;
  const top = element("div", "top");
  const state = element("span", "state", "lost");
  state.dataset.state = "lost";
  top.append(element("span", "name", one.worker), state);
  const where = one.models.join(", ") + (one.host ? ` · on ${one.host}` : "");
  const row = element("p", "row");
  row.append(element("span", "", `silent for ${Math.round(one.age_ms / 1000)} s`));
  row.append(element("span", "", `${one.moved} moved`), element("span", "", `${one.failed} failed`));
  item.append(top, element("p", "models", where), row);
  return item;
}

function worker(one) {
  const item = document.createElement("li");
  item.dataset.worker = one.worker;
  const top = element("div", "top");
  const name = element("span", "name", one.worker);
  name.title = [one.host, one.version].filter(Boolean).join(" · ");
  const state = element("span", "state", one.state);
  state.dataset.state = one.state;
  top.append(name, state);
  const where = [one.engine, one.host && `on ${one.host}`].filter(Boolean).join(" ");
  const models = element("p", "models", one.models.join(", ") + (where ? ` · ${where}` : ""));
  const meter = element("div", "meter");
  const used = document.createElement("span");
  used.style.width = `${one.slots ? Math.min(100, (one.active / one.slots) * 100) : 0}%`;
  meter.append(used);
  const row = element("p", "row");
  const use = element("span", "use", `${one.active} of ${plural(one.slots, "slot")}`);
  if (one.slots_from) use.title = `Where the number of slots comes from: ${one.slots_from}`;
  row.append(use);
  if (one.queued) row.append(element("span", "", `${one.queued} waiting`));
  if (one.kv_used !== null) row.append(element("span", "", `KV ${Math.round(one.kv_used * 100)} %`));
  if (one.ttft_ms) row.append(element("span", "", `TTFT ${Math.round(one.ttft_ms.p50)} ms`));
  if (one.tokens_per_second !== null) row.append(element("span", "", `${number(one.tokens_per_second)} tok/s`));
  item.append(top, models, meter, row);
  return item;
}
