// The models that can be chosen. A model that is gone stays chosen and is said to be gone: another one would answer otherwise.

import { $, element } from "./dom.js";
import { ask, Refusal } from "./gateway.js";
import { open } from "./settings.js";
import { keepSettings, settings } from "./storage.js";

let live = [];
let wanted = "";
let told = () => {};

/** The chosen model, if it is live. */
export const model = () => (live.includes(wanted) ? wanted : "");

/** Begins with the model that was chosen last. `changed` is called when another one can be asked. */
export function begin(changed) {
  const before = settings().model;
  if (typeof before === "string") wanted = before;
  told = changed;
  $("model").addEventListener("change", () => {
    wanted = $("model").value;
    keepSettings({ model: wanted });
    show();
  });
}

/** Asks which models chat and are live. */
export async function look() {
  try {
    const response = await ask("v1/models");
    if (!response.ok) throw await Refusal.of(response);
    const all = (await response.json()).data;
    // A worker that tells no capabilities counts as able.
    const chats = ({ capabilities }) => capabilities.chat || !Object.values(capabilities).some(Boolean);
    live = all.filter((one) => one.live && chats(one)).map((one) => one.id);
    wanted ||= live[0] ?? "";
    hint(live.length ? "Your message goes to the model that is chosen above." : nobody(all.length));
  } catch (error) {
    refused(error);
  }
  show();
}

const nobody = (known) => (known ? "No live worker serves a model that chats." : "No worker has announced a model yet.");

const hint = (text) => {
  $("hint").textContent = text;
};

/** What is wrong with the key is said where the key is entered. */
export function refused(error) {
  if (error.status !== 401) {
    hint(`The models cannot be listed: ${error.message}`);
    return;
  }
  live = [];
  hint(error.message);
  show();
  if ($("options").hidden) {
    open(true);
    $("key").focus();
  }
}

function option(id, text = id) {
  const made = element("option", "", text);
  made.value = id;
  return made;
}

function show() {
  const options = live.map((id) => option(id));
  const gone = wanted && !live.includes(wanted);
  if (gone) options.unshift(option(wanted, `${wanted} (not live)`));
  if (!options.length) options.push(option("", "No model is live"));
  $("model").replaceChildren(...options);
  $("model").value = wanted;
  $("model").disabled = !live.length;
  $("gone").hidden = !gone;
  const next = live.length ? "Choose another model above, or wait" : "No other model is live; wait";
  $("gone").textContent = gone ? `The model ${wanted} is not live now. ${next} until a worker serves it again.` : "";
  told();
}
