// What outlives a reload: the conversation, the model and the settings. The API key is not among them.

const CHAT = "tokenbus-chat";
const SETTINGS = "tokenbus-settings";
/** Most characters of a conversation that are kept. Browsers give a page about five million. */
const MOST = 1_000_000;

const isText = (value) => typeof value === "string";

function read(store, name) {
  try {
    return JSON.parse(store.getItem(name));
  } catch {
    return null;
  }
}

function write(store, name, value) {
  const text = JSON.stringify(value);
  try {
    store.setItem(name, text);
  } catch {
    // A browser without room or storage keeps nothing; the page works without.
    store.removeItem(name);
  }
}

/** The settings as they were left. */
export function settings() {
  const kept = read(localStorage, SETTINGS);
  return kept && typeof kept === "object" ? kept : {};
}

export function keepSettings(change) {
  write(localStorage, SETTINGS, { ...settings(), ...change });
}

/** The conversation of this tab, or the last one of another. */
export function conversation() {
  const kept = read(sessionStorage, CHAT) ?? read(localStorage, CHAT);
  const turns = Array.isArray(kept) ? kept.filter((turn) => isText(turn?.said)) : [];
  return turns.map(({ said, text, thoughts, facts, note }) => ({
    said,
    text: isText(text) ? text : "",
    thoughts: isText(thoughts) ? thoughts : "",
    facts: Array.isArray(facts) ? facts.filter(isText) : [],
    note: isText(note) ? note : "",
  }));
}

/** Keeps the last turns that fit. */
export function keepConversation(turns) {
  let room = MOST;
  const size = (turn) => turn.said.length + turn.text.length + turn.thoughts.length;
  const fits = turns.toReversed().filter((turn) => (room -= size(turn)) >= 0);
  const kept = fits.toReversed().map(({ said, text, thoughts, facts, note }) => ({ said, text, thoughts, facts, note }));
  // Two tabs have two conversations; a new tab goes on with the last one.
  for (const store of [sessionStorage, localStorage]) {
    if (kept.length) write(store, CHAT, kept);
    else store.removeItem(CHAT);
  }
}
