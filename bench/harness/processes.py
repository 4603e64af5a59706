"""Child processes: started in a folder of their own, watched, and gone at the end whatever happens."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

# Time from start to ready, seconds. Python routers import for many seconds on a loaded machine.
START_SECONDS = 90
# Time from SIGTERM to SIGKILL, seconds: nothing of value is lost, so they have little.
STOP_SECONDS = 3


class Failed(Exception):
    """A system could not be started or measured; the text says why."""


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """All that one measurement has started."""

    def __init__(self, folder):
        self.folder = folder
        self.children = []

    def start(self, name, command, env=None, cwd=None):
        """Starts a process in a group of its own, with its output in NAME.log."""
        log = os.path.join(self.folder, name + ".log")
        with open(log, "ab") as output:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(env or {})},
                cwd=cwd or self.folder,
            )
        self.children.append((name, child, log))
        return child

    def check(self):
        """Raises where a process has ended on its own."""
        for name, child, log in self.children:
            if child.poll() is not None:
                raise Failed(f"{name} ended with status {child.returncode}: {tail(log)}")

    def await_true(self, what, test, seconds=START_SECONDS):
        """Waits until `test` returns something true, and returns it."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            found = test()
            if found:
                return found
            if time.monotonic() > deadline:
                logs = "; ".join(f"{name}: {tail(log)}" for name, _, log in self.children)
                raise Failed(f"{what} not within {seconds} s ({logs})")
            time.sleep(0.05)

    def await_port(self, port):
        """Waits until somebody accepts connections there."""
        self.await_true(f"port {port} does not open,", lambda: accepts(port))

    def await_page(self, url, word=""):
        """Waits until the page answers 200 with `word` in it."""
        self.await_true(f"{url} does not answer,", lambda: word in (get(url) or "\0") if word else get(url) is not None)

    def stop(self):
        """Ends all of them, the last first, with whatever they have started."""
        for _, child, _ in reversed(self.children):
            kill_group(child, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for _, child, _ in self.children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
        # Also the groups whose leader has ended: it may have left children behind.
        for _, child, _ in self.children:
            kill_group(child, signal.SIGKILL)
            child.wait()
        self.children = []


def kill_group(child, number):
    """Signals a process and what it has started."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass


def accepts(port):
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(url):
    """The text of a page, or None where it does not answer 200."""
    # A proxy from the environment is for the outside world.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return answer.read().decode("utf-8", "replace")
    except (urllib.error.URLError, OSError, ValueError):
        return None


def tail(log, lines=3):
    """The end of a log, on one line."""
    with open(log, encoding="utf-8", errors="replace") as file:
        return " | ".join(line.strip() for line in file.read().splitlines()[-lines:]) or "(it says nothing)"


def family(pid):
    """A process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                    parents[int(entry)] = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for member in found:
        found.extend(child for child, parent in parents.items() if parent == member)
    return found


def cpu_seconds(pid):
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Memory resident in a process, bytes."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise Failed(f"/proc/{pid}/status has no VmRSS")
