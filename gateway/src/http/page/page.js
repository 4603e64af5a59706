// The built-in page: a chat with the models that are live, beside a live view of the cluster. Whatever a model or the gateway
// says is set as text or goes through `markdown.js`.

import * as chat from "./chat.js";
import { watch } from "./cluster.js";
import { $ } from "./dom.js";
import { ask } from "./gateway.js";
import * as models from "./models.js";
import * as settings from "./settings.js";

/** Brings what can be done now in line with what is going on. */
function settle() {
  // The focus does not get lost with the button that has it.
  const lost = document.activeElement === $("stop") && !chat.isRunning();
  document.body.dataset.running = String(chat.isRunning());
  $("stop").hidden = !chat.isRunning();
  $("send").hidden = chat.isRunning();
  $("send").disabled = !models.model() || !$("prompt").value.trim();
  $("empty").hidden = !chat.isEmpty();
  grow();
  if (lost) $("prompt").focus();
}

function grow() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function view(name) {
  document.body.dataset.view = name;
  $("view").setAttribute("aria-pressed", String(name === "cluster"));
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  view("chat");
  chat.send();
});
$("prompt").addEventListener("keydown", (event) => {
  // While an input method puts a character together, Enter is its own.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    chat.send();
  }
});
$("prompt").addEventListener("input", settle);
$("stop").addEventListener("click", chat.stop);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (chat.isRunning()) chat.stop();
  else if (!$("options").hidden) {
    settings.open(false);
    $("settings").focus();
  }
});
$("settings").addEventListener("click", () => {
  view("chat");
  settings.open($("options").hidden);
});
$("view").addEventListener("click", () => view(document.body.dataset.view === "chat" ? "cluster" : "chat"));
$("fresh").addEventListener("click", () => {
  chat.fresh();
  view("chat");
  settle();
  $("prompt").focus();
});

const cluster = watch(ask, models.look);
settings.begin(() => {
  models.look();
  cluster.look();
});
models.begin(settle);
chat.begin(settle);
models.look();
// A link to a worker or a model shows it, also where there is room for one of the two only.
if (cluster.linked()) view("cluster");
