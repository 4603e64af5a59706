// One answer as it is shown: reasoning, text, facts, what can be done with it, and failures.

import { $, button, copier, element } from "./dom.js";
import { Markdown } from "./markdown.js";

/** Part of the time that drawing may take: after a slow frame, the next waits. */
const SHARE = 4;

/** Makes a change, and stays at the end of the conversation where that is what is looked at. */
export function follow(change) {
  const scroll = $("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
  change();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

/** The answer of `turn`. Text is drawn once a frame at most, however many tokens come. */
export class Answer {
  constructor(turn, again) {
    this.turn = turn;
    this.again = again;
    this.node = element("div", "answer");
    this.body = element("div", "text");
    this.markdown = new Markdown(this.body);
    this.node.append(this.body);
    this.rested = 0;
  }

  begin() {
    this.node.setAttribute("aria-busy", "true");
  }

  add(text, thoughts) {
    this.turn.text += text;
    this.turn.thoughts += thoughts;
    this.frame ??= requestAnimationFrame((now) => this.draw(now));
  }

  draw(now) {
    if (now < this.rested) {
      this.frame = requestAnimationFrame((later) => this.draw(later));
      return;
    }
    this.frame = null;
    const begun = performance.now();
    follow(() => this.write(false));
    const end = performance.now();
    this.rested = end + (end - begun) * SHARE;
  }

  write(whole) {
    const { text, thoughts } = this.turn;
    if (thoughts) {
      if (!this.thinking) {
        const details = element("details", "thoughts");
        this.thinking = element("div");
        details.append(element("summary", "", "Reasoning"), this.thinking);
        this.node.prepend(details);
      }
      this.thinking.textContent = thoughts;
    }
    if (text) this.markdown.write(text, whole);
  }

  /** The answer is whole, or nothing more of it comes. */
  end() {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = null;
    follow(() => this.settle());
    // Only now is it read aloud, in one piece.
    this.node.setAttribute("aria-busy", "false");
  }

  settle() {
    this.write(true);
    const { text, facts, note } = this.turn;
    const line = element("div", "facts");
    line.append(...facts.map((fact) => element("span", "", fact)));
    if (note) line.append(element("span", "note", note));
    const actions = element("span", "actions");
    if (text) actions.append(copier(() => this.turn.text));
    actions.append(button("action again", "Regenerate", this.again));
    line.append(actions);
    this.node.append(line);
  }

  fail(error) {
    const box = element("div", "failure");
    box.setAttribute("role", "alert");
    const what = element("p", "", error.message);
    if (error.details) what.append(element("small", "", error.details));
    box.append(what, button("", "Try again", this.again));
    follow(() => this.node.append(box));
  }
}
