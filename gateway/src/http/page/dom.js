// Small things that every part of the page needs: elements, texts, the clipboard.

export const $ = (id) => document.getElementById(id);

export function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function button(name, text, action) {
  const made = element("button", name, text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

/** Tells those who hear the page. */
export const announce = (text) => {
  $("announce").textContent = text;
};

export const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
export const number = (value) => (value >= 100 ? Math.round(value).toLocaleString() : value.toFixed(Number.isInteger(value) ? 0 : 1));
export const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);

/** A button that puts what `text` returns onto the clipboard, and says so. */
export function copier(text) {
  const made = button("action copy", "Copy", async () => {
    const done = await copied(text());
    made.textContent = done ? "Copied" : "Not copied";
    announce(made.textContent);
    setTimeout(() => (made.textContent = "Copy"), 1500);
  });
  return made;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedTheOldWay(text);
  }
}

/** Browsers lend the clipboard only to pages on this machine or behind TLS. */
function copiedTheOldWay(text) {
  const before = document.activeElement;
  const field = element("textarea", "unseen");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}
