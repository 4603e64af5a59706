// Asking the gateway, like any other client: the key, refusals, and the events of a streamed answer.

const KEY = "tokenbus-key";

/** The key stays in this tab: it is not kept with the rest. */
export const key = () => sessionStorage.getItem(KEY) ?? "";

export function setKey(text) {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

/** Every request has the key, where there is one, and nothing else that names the user. */
export function ask(path, options = {}) {
  const headers = key() ? { ...options.headers, authorization: `Bearer ${key()}` } : options.headers;
  return fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
}

/** What a refusal says of itself. */
export class Refusal extends Error {
  static async of(response) {
    const text = await response.text().catch(() => "");
    let error = {};
    try {
      error = JSON.parse(text).error ?? {};
    } catch {
      error = { message: text.slice(0, 500) };
    }
    // The gateway has one code for both, as OpenAI has.
    if (response.status === 401) error = { ...error, message: key() ? WRONG_KEY : NO_KEY };
    return new Refusal(error, response.status, response.headers.get("x-request-id"), response.headers.get("retry-after"));
  }

  constructor(error, status, id, after) {
    super(error.message || `The gateway answered with status ${status}.`);
    const parts = [status && `status ${status}`, error.code, after && `try again in ${after} s`, id];
    this.status = status;
    this.code = error.code;
    this.details = parts.filter(Boolean).join(" · ");
  }
}

const NO_KEY = "This gateway asks for an API key. Enter one in the settings.";
const WRONG_KEY = "The gateway does not know the API key in the settings: it is mistyped or was revoked.";

/** The data of each server-sent event of `response`. */
export async function* events(response) {
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
