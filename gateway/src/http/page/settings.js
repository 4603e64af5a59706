// The settings: system prompt, temperature, most tokens, and the API key.

import { $ } from "./dom.js";
import { key, setKey } from "./gateway.js";
import { keepSettings, settings } from "./storage.js";

const KEPT = ["system", "temperature", "max_tokens"];

export function open(shown) {
  $("options").hidden = !shown;
  $("settings").setAttribute("aria-expanded", String(shown));
}

/** What a request says beside its messages, and the system prompt; null, and said where, if something is no number. */
export function chosen() {
  if (!$("options").checkValidity()) {
    open(true);
    $("options").reportValidity();
    return null;
  }
  const sampling = {};
  for (const name of ["temperature", "max_tokens"]) {
    if ($(name).value !== "") sampling[name] = $(name).valueAsNumber;
  }
  return { sampling, system: $("system").value.trim() };
}

/** Shows what was kept, and keeps what changes. `keyChanged` is called when there is another key. */
export function begin(keyChanged) {
  const before = settings();
  for (const name of KEPT) {
    const field = $(name);
    if (typeof before[name] === "string") field.value = before[name].slice(0, 100_000);
    field.addEventListener("input", () => {
      if (field.checkValidity()) keepSettings({ [name]: field.value });
    });
  }
  $("key").value = key();
  $("key").addEventListener("change", () => {
    setKey($("key").value.trim());
    keyChanged();
  });
  $("options").addEventListener("submit", (event) => event.preventDefault());
}
