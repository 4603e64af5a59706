"""`tokenbus chat` at a terminal of its own: colours, lines that outlive it.

Arguments: the program; the base URL of the API, whose model answers "**bold** `code`"; a folder.
"""

import os
import pty
import re
import select
import stat
import sys
import time

program, url, folder = sys.argv[1:4]
history = os.path.join(folder, "state", "history")
BOLD, CODE = b"\x1b[0;1m**bold**", b"\x1b[0;36m`code`"


class Chat:
    def __init__(self, *args, **variables):
        child, self.terminal = pty.fork()
        if child == 0:
            os.environ.update(TERM="xterm", **variables)
            os.execv(program, [program, "chat", "--url", url, *args])
        self.child, self.seen = child, b""

    def until(self, what, patience=20):
        """Reads until `what` was shown, and returns what came before and with it."""
        end = time.monotonic() + patience
        while not (found := re.search(what, self.seen, re.DOTALL)):
            assert select.select([self.terminal], [], [], end - time.monotonic())[0], (what, self.seen)
            self.seen += os.read(self.terminal, 4096)
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    def type(self, text):
        os.write(self.terminal, text)

    def leave(self):
        self.type(b"\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1]) == 0
        os.close(self.terminal)


PROMPT = rb"> "

chat = Chat("--history", history)
chat.until(PROMPT)
chat.type(b"first question\r")
shown = chat.until(rb"end\..*" + PROMPT)
assert BOLD in shown and CODE in shown, shown
chat.type(b'"""\rtwo\rlines\r"""\r')
chat.until(rb"end\..*" + PROMPT)
chat.type(b" behind a space\r")
chat.until(rb"end\..*" + PROMPT)
chat.leave()
kept = os.stat(history)
assert stat.S_IMODE(kept.st_mode) == 0o600, oct(kept.st_mode)
text = open(history).read()
assert "first question" in text and "lines" in text and "behind a space" not in text, text

# Another chat has them under the arrow keys.
chat = Chat("--history", history, NO_COLOR="1")
chat.until(PROMPT)
# Up to the last question, up through its four lines, and up to the one before.
chat.type(b"\x1b[A" * 5)
chat.until(b"first question")
chat.type(b"\r")
shown = chat.until(rb"end\..*" + PROMPT)
assert b"**bold** `code`" in shown and BOLD not in shown, shown
chat.leave()

chat = Chat("--history", "off", HOME=folder, XDG_STATE_HOME="")
chat.until(PROMPT)
chat.type(b"secret\r")
chat.until(rb"end\..*" + PROMPT)
chat.leave()
assert "secret" not in open(history).read() and not os.path.exists(os.path.join(folder, ".local")), "off keeps nothing"

chat = Chat(HOME=folder, XDG_STATE_HOME="")
chat.until(PROMPT)
chat.type(b"here\r")
chat.until(rb"end\..*" + PROMPT)
chat.leave()
assert "here" in open(os.path.join(folder, ".local/state/tokenbus/chat_history")).read()
