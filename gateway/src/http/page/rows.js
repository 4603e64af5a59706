// The lists of models, of workers, and of workers that were lost lately. Rows stay where they are, so the focus does too.

import { $, element, number, plural } from "./dom.js";

/** Most rows of a list. */
const MOST = 200;

export const SILENT = (lost) => `${Math.round(lost.age_ms / 1000)} s`;

/** A state with its colour. */
export function state(text) {
  const made = element("span", "state", text);
  made.dataset.state = text;
  return made;
}

function meter(part, whole) {
  const made = element("div", "meter");
  const used = element("span");
  used.style.width = `${whole ? Math.min(100, (part / whole) * 100) : 0}%`;
  made.append(used);
  return made;
}

function top(name, how) {
  const made = element("div", "top");
  made.append(element("span", "name", name), how);
  return made;
}

function row(...texts) {
  const made = element("p", "row");
  made.append(...texts.filter(Boolean).map((one) => (one instanceof Node ? one : element("span", "", one))));
  return made;
}

function worker(one) {
  const head = top(one.worker, state(one.state));
  head.firstElementChild.title = [one.host, one.version].filter(Boolean).join(" · ");
  const where = [one.engine, one.host && `on ${one.host}`].filter(Boolean).join(" ");
  const use = element("span", "use", `${one.active} of ${plural(one.slots, "slot")}`);
  if (one.slots_from) use.title = `Where the number of slots comes from: ${one.slots_from}`;
  const facts = row(
    use,
    one.queued && `${one.queued} waiting`,
    one.kv_used !== null && `KV ${Math.round(one.kv_used * 100)} %`,
    one.ttft_ms && `TTFT ${Math.round(one.ttft_ms.p50)} ms`,
    one.tokens_per_second !== null && `${number(one.tokens_per_second)} tok/s`,
  );
  return [head, element("p", "models", one.models.join(", ") + (where ? ` · ${where}` : "")), meter(one.active, one.slots), facts];
}

/** A worker that was lost lately, and what became of its streams. */
function lost(one) {
  const where = one.models.join(", ") + (one.host ? ` · on ${one.host}` : "");
  const facts = row(`silent for ${SILENT(one)}`, `${one.moved} moved`, `${one.failed} failed`);
  return [top(one.worker, state("lost")), element("p", "models", where), facts];
}

function model(one) {
  const waiting = one.queued + (one.waiting ?? 0);
  const facts = row(plural(one.workers, "worker"), `${one.slots - one.free} of ${plural(one.slots, "slot")}`, waiting && `${waiting} waiting`);
  return [top(one.model, state(one.workers ? "ready" : "not there")), facts];
}

/** Shows `items` in the list `id`: `link` is the address of each, `fill` its content. */
function list(id, items, kind, name, fill) {
  const rows = new Map([...$(id).children].map((item) => [item.dataset.key, item]));
  const wanted = items.slice(0, MOST).map((one) => {
    const key = `${kind(one)}:${name(one)}`;
    const item = rows.get(key) ?? document.createElement("li");
    if (!item.dataset.key) {
      item.dataset.key = key;
      item.dataset[kind(one)] = name(one);
      const link = element("a", "card");
      link.href = `#${kind(one) === "model" ? "model" : "worker"}=${encodeURIComponent(name(one))}`;
      item.append(link);
    }
    item.firstElementChild.replaceChildren(...fill(one));
    return item;
  });
  if (items.length > MOST) wanted.push(element("li", "nobody", `and ${items.length - MOST} more`));
  const now = [...$(id).children];
  if (now.length !== wanted.length || wanted.some((item, at) => item !== now[at])) $(id).replaceChildren(...wanted);
}

export function workers(there, gone) {
  const is = new Set(there);
  const all = [...there, ...gone];
  list("list", all, (one) => (is.has(one) ? "worker" : "lost"), (one) => one.worker, (one) => (is.has(one) ? worker(one) : lost(one)));
  if (!all.length) $("list").replaceChildren(element("li", "nobody", "No worker is there."));
}

export function models(all) {
  list("served", all, () => "model", (one) => one.model, model);
  if (!all.length) $("served").replaceChildren(element("li", "nobody", "No model is there."));
}
