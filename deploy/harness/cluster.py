"""A Compose project, and checked load through its ingress while something happens to it."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

DEPLOY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Streams at once, and the tokens of each: an answer takes a second.
CONCURRENCY, TOKENS = 12, 48
# Seconds of load behind what happened, however long that took, and most of all together.
AFTER, MOST = 2, 900


class Failed(Exception):
    """What was promised did not hold; the text says what."""


def call(*words, env=None, check=True, timeout=300):
    """Runs a command and returns what it wrote on standard output."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, words))}: status {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


class Cluster:
    """The containers of one project."""

    def __init__(self, binary, files, port, env=None):
        self.binary, self.port = binary, port
        files = ":".join(os.path.join(DEPLOY, file) for file in files)
        self.env = {"COMPOSE_FILE": files, "TOKENBUS_PORT": str(port), **(env or {})}
        self.url = f"http://127.0.0.1:{port}"

    def compose(self, *words, check=True, timeout=300):
        return call("docker", "compose", *words, env=self.env, check=check, timeout=timeout)

    def roll(self, *services):
        call(os.path.join(DEPLOY, "roll"), *services, env=self.env)

    def containers(self, service):
        return self.compose("ps", "--all", "--quiet", service).split()

    def up(self, *words):
        self.compose("up", "-d", "--wait", "--wait-timeout", "120", *words)

    def down(self):
        self.compose("down", "--volumes", "--timeout", "5", check=False)

    def crash(self, container):
        """Kills its process, behind the engine's back: the restart policy sees a crash."""
        os.kill(int(call("docker", "inspect", "--format", "{{.State.Pid}}", container)), 9)

    def network(self, container):
        """The project's network, and what cuts `container` off and joins it again."""
        name = call("docker", "inspect", "--format", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", container)
        return name.strip()

    def ask(self, path="/v1/models", timeout=20):
        """Status, headers and body of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def wait_for_model(self, seconds=30):
        """Waits until a model is served."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                status, _, body = self.ask(timeout=5)
                if status == 200 and any(model.get("live") for model in json.loads(body)["data"]):
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        raise Failed("no model is served")

    def load(self, seconds, concurrency=CONCURRENCY):
        return Load(self, seconds, concurrency)

    def answers(self, count=4):
        """Checks a few answers to the token."""
        with Load(self, None, 2, requests=count) as load:
            pass
        load.none_failed("afterwards")


class Load:
    """`tokenbus bench` beside what happens in the `with` block, for `seconds` at least; it checks every answer."""

    def __init__(self, cluster, seconds, concurrency, requests=None):
        words = [cluster.binary, "bench", "--url", cluster.url + "/v1", "--model", "sim", "--json", "--check", "sim"]
        words += ["--concurrency", concurrency, "--max-tokens", TOKENS, "--timeout", "60s"]
        words += ["--requests", requests] if requests else ["--duration", f"{MOST}s"]
        self.words, self.report, self.seconds = [str(word) for word in words], None, seconds

    def __enter__(self):
        self.started = time.monotonic()
        self.child = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.output = []
        self.reader = threading.Thread(target=lambda: self.output.append(self.child.communicate()))
        self.reader.start()
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.child.kill()
        elif self.seconds:
            # On a slow machine a roll takes longer than it should: load that had ended would have proved nothing.
            time.sleep(max(AFTER, self.started + self.seconds - time.monotonic()))
            if self.child.poll() is not None:
                self.reader.join()
                raise Failed(f"the load ended by itself: {self.output[0][1][-500:]}")
            self.child.send_signal(signal.SIGINT)
        self.reader.join()
        out, err = self.output[0]
        self.said = err
        try:
            self.report = json.loads(out)
        except ValueError:
            if not kind:
                raise Failed(f"the load did not run: {err[-500:]}") from None

    @property
    def failed(self):
        return self.report["requests"]["failed"]

    @property
    def passed(self):
        return self.report["requests"]["succeeded"]

    def none_failed(self, what, but=0):
        if self.failed > but or not self.passed:
            failures = json.dumps(self.report.get("failures", ""))[:600]
            raise Failed(f"{what}: {self.failed} of {self.failed + self.passed} requests failed, {but} may: {failures}")
