"""The test-bed: two vLLM servers, a cluster in front of them, and a client. Standard library only.

Everything listens on 127.0.0.1. Every process is stopped by its pid.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MODEL = "smollm2"
ENGINE_FLAGS = [
    "--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager",
    "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-prompt-tokens-details",
    "--served-model-name", MODEL,
]  # fmt: skip
ENGINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2", "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_SERVER_DEV_MODE": "1",
}  # fmt: skip


def free_port() -> int:
    """A port on which nothing listens."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what: str, test, seconds: float = 30.0):
    """Asks `test` until it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            if got := test():
                return got
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


class Process:
    """A child with a log file; it leads a session, so that its own children end with it."""

    def __init__(self, name: str, folder: Path, command: list, **environment: str):
        self.name, self.log = name, folder / f"{name}.log"
        output = self.log.open("ab")
        words = [str(word) for word in command]
        self.child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | environment,
            start_new_session=True,
        )  # fmt: skip

    def send(self, number: int, group: bool = False) -> None:
        """Sends a signal to the process, or to its whole session."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.child.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole session, and waits."""
        self.send(signal.SIGKILL, group=True)
        self.child.wait()

    def stop(self, patience: float = 10.0) -> None:
        """SIGTERM, and SIGKILL to whatever remains of the session after `patience` seconds."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(patience)
        self.kill()


class Pid(int):
    """The id of a process that this one did not start itself."""

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self, number)


class Answer:
    """An answer: its status, its headers, and its events or its document."""

    def __init__(self):
        self.status, self.headers, self.events, self.document, self.done = 0, {}, [], None, False

    def choice(self, index: int = 0) -> dict:
        """The joined choice of a stream, or the choice of a document: text, reason, count of logprobs and calls."""
        joined = {"text": "", "reason": None, "logprobs": 0, "calls": []}
        documents = self.events if self.document is None else [self.document]
        for document in documents:
            for choice in document.get("choices", []):
                if choice["index"] != index:
                    continue
                said = choice.get("delta") or choice.get("message") or {}
                joined["text"] += choice.get("text") or said.get("content") or ""
                joined["reason"] = choice.get("finish_reason") or joined["reason"]
                logprobs = choice.get("logprobs") or {}
                joined["logprobs"] += len(logprobs.get("content") or logprobs.get("tokens") or [])
                joined["calls"] += said.get("tool_calls") or []
        return joined

    @property
    def usage(self) -> dict:
        """Prompt and completion tokens."""
        documents = self.events if self.document is None else [self.document]
        found = [document["usage"] for document in documents if document.get("usage")]
        return {name: found[-1][name] for name in ("prompt_tokens", "completion_tokens")} if found else {}

    @property
    def error(self) -> dict | None:
        """The error of the document or of the last event."""
        last = self.document if self.document is not None else (self.events[-1] if self.events else {})
        return last.get("error") if isinstance(last, dict) else None


def ask(port: int, path: str, body: dict, on_event=None, seconds: float = 120.0) -> Answer:
    """Sends a request; `on_event(number of events)` is called after each event of a stream."""
    answer = Answer()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        answer.status, answer.headers = response.status, {k.lower(): v for k, v in response.getheaders()}
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.document = json.loads(response.read() or b"{}")
            return answer
        for line in response:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                answer.done = True
                continue
            answer.events.append(json.loads(data))
            if on_event and on_event(len(answer.events)) is False:
                return answer
    return answer


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")


class Bed:
    """Two engines, and a cluster to which each check adds its workers."""

    def __init__(self, tokenbus: Path, nats: Path, python: Path, model: Path, folder: Path):
        self.tokenbus, self.python, self.model, self.folder = tokenbus, python, model, folder
        self.processes: list[Process] = []
        self.bus, self.gateway = free_port(), free_port()
        self.engine_ports = [free_port(), free_port()]
        self.engines: list[Process] = []
        self.workers: dict[str, Process] = {}
        self.start("nats", [nats, "-a", "127.0.0.1", "-p", self.bus, "-js", "-sd", folder / "js"])
        until("NATS", lambda: socket.create_connection(("127.0.0.1", self.bus), 1))
        self.start("coordinator", [tokenbus, "coordinator", *self.nats, "--listen", f"127.0.0.1:{free_port()}"])
        self.start("gateway", [tokenbus, "gateway", *self.nats, "--listen", f"127.0.0.1:{self.gateway}"])
        until("the gateway", lambda: get(self.gateway, "/readyz")[0] == 200)

    @property
    def nats(self) -> list[str]:
        """The flag that all roles have."""
        return ["--nats", f"nats://127.0.0.1:{self.bus}"]

    def start(self, name: str, command: list, **environment: str) -> Process:
        """Starts a process that ends with the bed."""
        process = Process(name, self.folder, command, **environment)
        self.processes.append(process)
        return process

    def engine(self, number: int) -> Process:
        """Starts vLLM number 0 or 1; `wait_for_engine` waits until it serves."""
        packages = self.python.parent.parent / "lib"
        preload = next(packages.rglob("libiomp5.so"), None)
        environment = ENGINE_ENVIRONMENT | ({"LD_PRELOAD": str(preload)} if preload else {})
        environment["PATH"] = f"{self.python.parent}:{os.environ['PATH']}"
        command = [
            self.python.parent / "vllm", "serve", self.model, "--host", "127.0.0.1",
            "--port", self.engine_ports[number], *ENGINE_FLAGS,
        ]  # fmt: skip
        return self.start(f"vllm-{number}", command, **environment)

    def wait_for_engine(self, number: int) -> None:
        """Waits until the engine is healthy."""
        until(f"vLLM {number}", lambda: get(self.engine_ports[number], "/health")[0] == 200, 600)

    def worker(self, name: str, engine: int, wait: bool = True, **environment: str) -> Process:
        """Starts a worker for an engine."""
        url = f"http://127.0.0.1:{self.engine_ports[engine]}/v1"
        command = [self.tokenbus, "worker", *self.nats, "--id", name, "--engine", "openai", "--url", url]
        self.workers[name] = process = self.start(f"worker-{name}", command, **environment)
        if wait:
            until("the worker", lambda: self.status()["workers"] and MODEL in get(self.gateway, "/v1/models")[1])
        return process

    def descendants(self, engine: int, title: str) -> list["Pid"]:
        """The processes below an engine whose title has this text."""
        found, below = [], {self.engines[engine].child.pid}
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True).stdout
        rows = sorted((line.split(None, 2) for line in listed.splitlines()), key=lambda row: int(row[0]))
        for pid, parent, *words in rows:
            if int(parent) in below:
                below.add(int(pid))
                if words and title in words[0]:
                    found.append(Pid(int(pid)))
        return found

    def status(self) -> dict:
        """`tokenbus status --json`."""
        told = subprocess.run([self.tokenbus, "status", "--json", *self.nats], capture_output=True, text=True)
        return json.loads(told.stdout)

    def stop_workers(self) -> None:
        """Stops all workers, and waits until the cluster has forgotten them."""
        for process in self.workers.values():
            process.stop(3)
        self.workers.clear()
        until("the workers to go", lambda: not self.status()["workers"], 60)

    def close(self) -> None:
        """Ends everything."""
        for process in reversed(self.processes):
            process.stop()


def say(*words: object) -> None:
    """Progress, on standard error."""
    print(*words, file=sys.stderr, flush=True)
