// Markdown of a model as a part of the page, while it still comes. Raw HTML in it is text. What the parser makes is built
// as nodes by the sanitiser, which knows only the elements below: nothing of a model's answer runs, loads or submits.

import { copier, element } from "./dom.js";
import { Marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";

/** Longer answers are shown as plain text, characters. */
const MOST = 300_000;
/** Blocks at the end that the next token may still change: a list goes on after an empty line. */
const OPEN = 2;

const SAFE = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replace(/[&<>"']/g, (one) => ENTITIES[one]);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    // Loading it would tell its server who reads this.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** A block of code with its language and a button that copies it. */
function codeBlock(text, language) {
  const node = element("div", "code");
  const head = element("div", "code-head");
  const code = element("code", "", text);
  const pre = element("pre");
  // It scrolls, so the keyboard must reach it.
  pre.tabIndex = 0;
  pre.append(code);
  head.append(element("span", "", language), copier(() => code.textContent));
  node.append(head, pre);
  return { node, code };
}

function fragment(html) {
  const made = globalThis.DOMPurify.sanitize(html, SAFE);
  for (const link of made.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) link.replaceWith(...link.childNodes);
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const pre of made.querySelectorAll("pre")) {
    const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
    pre.replaceWith(codeBlock(pre.textContent.replace(/\n$/, ""), language).node);
  }
  for (const one of made.querySelectorAll("[class]:not(.code, .code *)")) one.removeAttribute("class");
  for (const table of made.querySelectorAll("table")) {
    const frame = element("div", "table");
    frame.tabIndex = 0;
    table.replaceWith(frame);
    frame.append(table);
  }
  return made;
}

/** One block: made anew only if it says something else; code that only grew gets its new text. */
function block(token, before) {
  if (token.type === "code") {
    const language = (token.lang ?? "").split(/\s/)[0];
    const { text } = token;
    if (before?.language === language && text.startsWith(before.source)) {
      if (text.length > before.source.length) before.code.append(text.slice(before.source.length));
      before.source = text;
      return before;
    }
    return { ...codeBlock(text, language), language, source: text };
  }
  const source = marked.parser([token]);
  if (before && before.language === undefined && before.source === source) return before;
  const node = element("div");
  node.append(fragment(source));
  return { node, source };
}

/** Shows a growing text in `node`. */
export class Markdown {
  constructor(node) {
    this.node = node;
    this.restart();
  }

  restart() {
    this.blocks = [];
    /** Blocks, and characters of the text, that nothing can change any more. */
    this.settled = 0;
    this.from = 0;
    this.node.replaceChildren();
  }

  /** Only the last blocks are parsed again; with `whole` all are, since a link may be defined behind its use. */
  write(text, whole = false) {
    try {
      if (text.length > MOST) throw new RangeError("too long");
      if (this.node.classList.contains("plain")) this.restart();
      if (whole) this.settled = this.from = 0;
      this.render(marked.lexer(text.slice(this.from)));
      this.node.classList.remove("plain");
    } catch {
      // A parser that gives up must not take the answer with it.
      this.restart();
      this.node.classList.add("plain");
      this.node.textContent = text;
    }
  }

  render(tokens) {
    const shown = tokens.filter(({ type }) => type !== "space" && type !== "def");
    const blocks = shown.map((token, at) => block(token, this.blocks[this.settled + at]));
    const old = this.blocks.slice(this.settled);
    blocks.forEach((one, at) => {
      if (!old[at]) this.node.append(one.node);
      else if (old[at] !== one) old[at].node.replaceWith(one.node);
    });
    for (const one of old.slice(blocks.length)) one.node.remove();
    this.blocks.splice(this.settled, old.length, ...blocks);
    const open = shown.at(-OPEN);
    if (shown.length <= OPEN) return;
    for (const token of tokens) {
      if (token === open) break;
      this.from += token.raw.length;
    }
    this.settled += shown.length - OPEN;
  }
}
