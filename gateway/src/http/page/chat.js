// The conversation: questions, answers under way, editing a question, asking again.

import { Answer, follow } from "./answer.js";
import { $, announce, button, copier, element } from "./dom.js";
import { ask, events, Refusal } from "./gateway.js";
import * as models from "./models.js";
import * as settings from "./settings.js";
import * as storage from "./storage.js";

/** What was said, and what came of it. */
let turns = [];
/** The answer that is under way. */
let running = null;

export const isRunning = () => running !== null;
export const stop = () => running?.abort();

const notes = {
  length: "cut at its length limit",
  content_filter: "ended by a content filter",
  tool_calls: "asks for a tool, which this page has none of",
};

// ---- Turns -------------------------------------------------------------------------------------

function show(turn) {
  turn.node = element("article", "turn");
  const question = element("div", "question");
  turn.bubble = element("div", "said", turn.said);
  const actions = element("div", "actions");
  actions.append(button("action edit", "Edit", () => edit(turn)), copier(() => turn.said));
  question.append(turn.bubble, actions);
  turn.node.append(question);
  $("log").append(turn.node);
  turn.answer = new Answer(turn, () => again(turn));
}

function add(turn) {
  show(turn);
  turns.push(turn);
}

/** Puts the field in the place of the question. What follows it is asked anew, and until then stays. */
function edit(turn) {
  if (running || turn.node.querySelector("form")) return;
  const form = element("form", "editor");
  const field = element("textarea");
  field.value = turn.said;
  field.setAttribute("aria-label", "Edit your message");
  field.rows = Math.min(12, turn.said.split("\n").length + 1);
  const question = turn.node.firstElementChild;
  const close = () => {
    form.replaceWith(question);
    question.querySelector(".edit").focus();
  };
  const buttons = element("div", "buttons");
  const send = element("button", "", "Ask again");
  buttons.append(button("quiet", "Cancel", close), send);
  form.append(field, buttons);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const said = field.value.trim();
    if (!said || running || !ready()) return;
    close();
    turn.said = turn.bubble.textContent = said;
    again(turn);
    $("prompt").focus();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
  });
  question.replaceWith(form);
  field.focus();
}

/** Asks `turn` again, without what came after it. */
function again(turn) {
  if (running || !ready()) return;
  const at = turns.indexOf(turn);
  for (const later of turns.splice(at + 1)) later.node.remove();
  answer(turn);
}

const ready = () => models.model() !== "" && settings.chosen() !== null;

export function send() {
  const prompt = $("prompt");
  const said = prompt.value.trim();
  if (!said || running || !ready()) return;
  const turn = { said };
  add(turn);
  prompt.value = "";
  answer(turn);
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

export function fresh() {
  stop();
  turns = [];
  $("log").replaceChildren();
  keep();
}

// ---- Over a reload -----------------------------------------------------------------------------

const keep = () => storage.keepConversation(turns);

/** Shows what was kept. `changed` is called when an answer begins or ends. */
export function begin(changed) {
  settled = changed;
  for (const turn of storage.conversation()) {
    add(turn);
    turn.answer.end();
    turn.node.append(turn.answer.node);
  }
  $("scroll").scrollTop = $("scroll").scrollHeight;
  // Some browsers break the connection before they hide the page.
  addEventListener("beforeunload", () => (leaving = true));
  addEventListener("pagehide", () => {
    const last = turns.at(-1);
    if (running && last) last.note = LEFT;
    keep();
  });
}

let settled = () => {};
let leaving = false;
const LEFT = "interrupted: the page was left";

export const isEmpty = () => turns.length === 0;

// ---- Asking ------------------------------------------------------------------------------------

function conversation(until, system) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    messages.push({ role: "user", content: turn.said });
    if (turn === until) break;
    if (turn.text) messages.push({ role: "assistant", content: turn.text });
    // What was not answered is not part of what was said.
    else messages.pop();
  }
  return messages;
}

async function answer(turn) {
  const { sampling, system } = settings.chosen();
  turn.answer?.node.remove();
  Object.assign(turn, { text: "", thoughts: "", facts: [], note: "", answer: new Answer(turn, () => again(turn)) });
  const shown = turn.answer;
  shown.begin();
  turn.node.append(shown.node);
  const mine = (running = new AbortController());
  settled();
  announce("Answering");
  keep();
  const clock = { begun: performance.now() };
  try {
    const body = {
      model: models.model(),
      messages: conversation(turn, system),
      ...sampling,
      stream: true,
      stream_options: { include_usage: true },
    };
    await stream(body, mine.signal, shown, clock);
    finish(shown, clock, notes[clock.reason]);
    announce("Answer complete");
  } catch (error) {
    failed(shown, error, clock);
  } finally {
    if (running === mine) running = null;
    keep();
    settled();
  }
}

async function stream(body, signal, shown, clock) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await Refusal.of(response);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(chunk.error, 0, response.headers.get("x-request-id"));
    clock.usage = chunk.usage ?? clock.usage;
    const choice = chunk.choices?.[0];
    clock.reason = choice?.finish_reason ?? clock.reason;
    const delta = choice?.delta ?? {};
    const [text, thoughts] = [delta.content ?? "", delta.reasoning_content ?? delta.reasoning ?? ""];
    if (text || thoughts) {
      clock.first ??= performance.now();
      shown.add(text.replaceAll("\r", ""), thoughts);
    }
  }
  throw new Refusal({ message: "The connection ended before the answer did. What you see is a part of it." });
}

function finish(shown, clock, note = "") {
  Object.assign(shown.turn, { facts: facts(clock), note });
  shown.end();
}

function failed(shown, error, clock) {
  if (error.name === "AbortError") {
    finish(shown, clock, "stopped");
    announce("Stopped");
    return;
  }
  finish(shown, clock);
  const known = error instanceof Refusal;
  const said = known ? error : new Refusal({ message: "The gateway cannot be reached, or the connection broke." });
  follow(() => shown.fail(said));
  // Seen after a reload.
  shown.turn.note = leaving ? LEFT : said.message;
  if (error.status === 401) models.refused(error);
  if (error.code === "model_not_found" || error.code === "no_worker") models.look();
}

function facts({ begun, first, usage }) {
  if (!first) return [];
  const tokens = usage?.completion_tokens;
  const seconds = (performance.now() - first) / 1000;
  return [
    tokens !== undefined && `${tokens} tokens`,
    // Of what came at once, a rate says nothing.
    tokens > 1 && seconds > 0.2 && `${((tokens - 1) / seconds).toFixed(1)} tokens/s`,
    `first after ${Math.round(first - begun)} ms`,
  ].filter(Boolean);
}
