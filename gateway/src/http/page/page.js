// The built-in page: a chat with the models that are live. Whatever a model or the gateway says is
// set as text and never read as HTML.

import { watch } from "./page-cluster.js";

const $ = (id) => document.getElementById(id);
const KEY = "tokenbus-key";

/** The conversation: what was said, what came of it, and where it is shown. */
let turns = [];
/** The answer that is under way. */
let running = null;

// ---- Asking the gateway ------------------------------------------------------------------------

/** Headers of every request: the key, where there is one, and nothing else that names the user. */
const headers = (more = {}) => {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, authorization: `Bearer ${key}` } : more;
};

const ask = (path, options = {}) =>
  fetch(path, { ...options, headers: headers(options.headers), credentials: "omit", cache: "no-store" });

/** What a refusal says of itself. */
class Refusal extends Error {
  static async of(response) {
    const text = await response.text().catch(() => "");
    let error = {};
    try {
      error = JSON.parse(text).error ?? {};
    } catch {
      error = { message: text.slice(0, 500) };
    }
    return new Refusal(error, response.status, response.headers.get("x-request-id"), response.headers.get("retry-after"));
  }

  constructor(error, status, id, after) {
    super(error.message || `The gateway answered with status ${status}.`);
    const parts = [status && `status ${status}`, error.code, after && `try again in ${after} s`, id];
    this.status = status;
    this.details = parts.filter(Boolean).join(" · ");
  }
}

// ---- Models ------------------------------------------------------------------------------------

/** Fills the list with the models that chat and are live. Keeps what is chosen while it is there. */
async function models() {
  const list = $("model");
  let live = [];
  try {
    const response = await ask("v1/models");
    if (!response.ok) throw await Refusal.of(response);
    const all = (await response.json()).data;
    // A worker that tells no capabilities counts as able.
    const chats = ({ capabilities }) => capabilities.chat || !Object.values(capabilities).some(Boolean);
    live = all.filter((model) => model.live && chats(model)).map((model) => model.id);
    hint(live.length ? "ready" : "none", all.length > 0);
  } catch (error) {
    hint(error.status === 401 ? "key" : "lost", error.message);
  }
  const chosen = list.value;
  const options = live.map((id) => {
    const option = document.createElement("option");
    option.value = option.textContent = id;
    return option;
  });
  if (!options.length) {
    const none = document.createElement("option");
    none.value = "";
    none.textContent = "No model is live";
    options.push(none);
  }
  list.replaceChildren(...options);
  if (live.includes(chosen)) list.value = chosen;
  list.disabled = !live.length;
  settle();
}

function hint(state, more) {
  const texts = {
    ready: "Your message goes to the model that is chosen above.",
    none: more ? "No live worker serves a model that chats." : "No worker has announced a model yet.",
    key: "This gateway asks for an API key. Enter it in the settings.",
    lost: `The models cannot be listed: ${more}`,
  };
  $("hint").textContent = texts[state];
  if (state === "key" && $("options").hidden) {
    options(true);
    $("key").focus();
  }
}

// ---- Showing a turn ----------------------------------------------------------------------------

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Makes a change, and stays at the end of the conversation where that is what is looked at. */
function follow(change) {
  const scroll = $("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
  change();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

/** Text is added once a frame, however many tokens come. */
class Answer {
  constructor(turn) {
    this.text = "";
    this.thoughts = "";
    this.node = element("div", "answer");
    this.node.setAttribute("aria-busy", "true");
    this.body = element("div", "text");
    this.node.append(this.body);
    turn.node.append(this.node);
  }

  add(text, thoughts) {
    this.text += text;
    this.thoughts += thoughts;
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    follow(() => this.write());
  }

  write() {
    if (this.thoughts) {
      if (!this.thinking) {
        const details = element("details", "thoughts");
        this.thinking = element("div");
        details.append(element("summary", "", "Reasoning"), this.thinking);
        this.node.prepend(details);
      }
      this.thinking.textContent = this.thoughts;
    }
    this.body.textContent = this.text;
  }

  /** The answer is whole, or nothing more of it comes: blocks of code are set apart. */
  end(facts, note) {
    if (this.frame) cancelAnimationFrame(this.frame);
    follow(() => this.settle(facts, note));
    // Only now is it read aloud, in one piece.
    this.node.setAttribute("aria-busy", "false");
  }

  settle(facts, note) {
    this.write();
    const pieces = this.text.split(/^```[^\n]*\n?/m);
    if (pieces.length > 1) {
      const made = pieces.map((piece, at) => {
        if (at % 2) return element("pre", "", piece.replace(/\n$/, ""));
        return element("span", "", piece.replace(/^\n|\n$/g, ""));
      });
      this.body.replaceChildren(...made);
    }
    const line = element("p", "facts");
    line.append(...facts.filter(Boolean).map((fact) => element("span", "", fact)));
    if (note) line.append(element("span", "note", note));
    if (line.childNodes.length) this.node.append(line);
  }

  fail(error, again) {
    const box = element("div", "failure");
    box.setAttribute("role", "alert");
    const what = element("p", "", error.message);
    if (error.details) what.append(element("small", "", error.details));
    const button = element("button", "", "Try again");
    button.type = "button";
    button.addEventListener("click", again);
    box.append(what, button);
    follow(() => this.node.append(box));
  }
}

// ---- Chat --------------------------------------------------------------------------------------

function conversation(until) {
  const system = $("system").value.trim();
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    messages.push({ role: "user", content: turn.said });
    if (turn === until) break;
    if (turn.answer?.text) messages.push({ role: "assistant", content: turn.answer.text });
    // What was not answered is not part of what was said.
    else messages.pop();
  }
  return messages;
}

/** The data of each server-sent event of `response`. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield data.join("\n");
    }
  }
}

async function answer(turn) {
  turn.answer?.node.remove();
  const shown = new Answer(turn);
  turn.answer = shown;
  running = new AbortController();
  settle();
  announce("Answering");
  const begun = performance.now();
  let first, usage, reason;
  let done = false;
  try {
    const body = {
      model: $("model").value,
      messages: conversation(turn),
      stream: true,
      stream_options: { include_usage: true },
    };
    const response = await ask("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: running.signal,
    });
    if (!response.ok) throw await Refusal.of(response);
    for await (const data of events(response)) {
      if (data === "[DONE]") {
        done = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refusal(chunk.error, 0, response.headers.get("x-request-id"));
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      reason = choice?.finish_reason ?? reason;
      const delta = choice?.delta ?? {};
      const [text, thoughts] = [delta.content ?? "", delta.reasoning_content ?? delta.reasoning ?? ""];
      if (text || thoughts) {
        first ??= performance.now();
        shown.add(text, thoughts);
      }
    }
    if (!done) throw new Refusal({ message: "The connection ended before the answer did. What you see is a part of it." });
    shown.end(facts(begun, first, usage), notes[reason]);
    announce("Answer complete");
  } catch (error) {
    finish(turn, shown, error, facts(begun, first, usage));
  } finally {
    running = null;
    settle();
  }
}

const notes = {
  length: "cut at its length limit",
  content_filter: "ended by a content filter",
  tool_calls: "asks for a tool, which this page has none of",
};

function finish(turn, shown, error, facts) {
  if (error.name === "AbortError") {
    shown.end(facts, "stopped");
    announce("Stopped");
    return;
  }
  shown.end(facts);
  const unreachable = new Refusal({ message: "The gateway cannot be reached, or the connection broke." });
  shown.fail(error instanceof Refusal ? error : unreachable, () => running || answer(turn));
  if (error.status === 401) hint("key");
}

function facts(begun, first, usage) {
  if (!first) return [];
  const now = performance.now();
  const tokens = usage?.completion_tokens;
  const seconds = (now - first) / 1000;
  return [
    tokens !== undefined && `${tokens} tokens`,
    // Of what came at once, a rate says nothing.
    tokens > 1 && seconds > 0.2 && `${((tokens - 1) / seconds).toFixed(1)} tokens/s`,
    `first after ${Math.round(first - begun)} ms`,
  ];
}

function send() {
  const prompt = $("prompt");
  const said = prompt.value.trim();
  if (!said || running || !$("model").value) return;
  const turn = { said, node: element("article", "turn") };
  turn.node.append(element("div", "said", said));
  $("log").append(turn.node);
  turns.push(turn);
  prompt.value = "";
  grow();
  answer(turn);
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

const stop = () => running?.abort();

// ---- The page ----------------------------------------------------------------------------------

const announce = (text) => {
  $("announce").textContent = text;
};

/** Brings what can be done now in line with what is going on. */
function settle() {
  // The focus does not get lost with the button that has it.
  const lost = document.activeElement === $("stop") && !running;
  $("stop").hidden = !running;
  $("send").hidden = Boolean(running);
  $("send").disabled = !$("model").value || !$("prompt").value.trim();
  $("empty").hidden = turns.length > 0;
  if (lost) $("prompt").focus();
}

function grow() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function options(open) {
  $("options").hidden = !open;
  $("settings").setAttribute("aria-expanded", String(open));
}

function view(name) {
  document.body.dataset.view = name;
  $("view").setAttribute("aria-pressed", String(name === "cluster"));
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  view("chat");
  send();
});
$("prompt").addEventListener("keydown", (event) => {
  // While an input method puts a character together, Enter is its own.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
$("prompt").addEventListener("input", () => {
  grow();
  settle();
});
$("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) stop();
  else if (!$("options").hidden) {
    options(false);
    $("settings").focus();
  }
});
$("settings").addEventListener("click", () => {
  view("chat");
  options($("options").hidden);
});
$("view").addEventListener("click", () => view(document.body.dataset.view === "chat" ? "cluster" : "chat"));
$("fresh").addEventListener("click", () => {
  stop();
  turns = [];
  $("log").replaceChildren();
  view("chat");
  settle();
  $("prompt").focus();
});
$("model").addEventListener("change", settle);
$("options").addEventListener("submit", (event) => event.preventDefault());
$("key").value = sessionStorage.getItem(KEY) ?? "";
$("key").addEventListener("change", () => {
  const key = $("key").value.trim();
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  models();
  cluster.look();
});

const cluster = watch(ask, models);
models();
