"""How each system is started, and what belongs to it."""

import os
import re
import subprocess

from .processes import Failed, family, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = "sim"
# Requests that workers take at once; more than any scenario has.
SLOTS = 1024


class Running:
    """A started system: where it answers, and the processes whose CPU time counts."""

    def __init__(self, url, pids, engine=None):
        self.url = url
        self.pids = pids
        self.engine = engine

    def flags(self):
        """For `tokenbus bench --pid`."""
        named = [(name, pid) for name, pids in self.pids.items() for pid in pids]
        if self.engine:
            named.append(("engine", self.engine))
        return [part for name, pid in named for part in ("--pid", f"{name}={pid}")]


class Starter:
    """Starts systems, with what they share: the binary, the cache of peers, the processes."""

    def __init__(self, binary, tool, cache, nats_server, processes):
        self.binary = binary
        # The load generator and the engine stay the same when two builds are compared.
        self.tool = tool
        self.cache = cache
        self.nats_server = nats_server
        self.processes = processes

    def start(self, system, ttft, itl, **options):
        """Starts `system` with an engine of these latencies (as the flags take them)."""
        if system == "floor":
            return self.floor(itl)
        # Over HTTP/2 it is the same system: only the clients differ (see scenarios.py).
        system = system.removesuffix("-h2")
        if system == "tokenbus-sim":
            return self.tokenbus(ttft, itl, engine=None, **options)
        if system == "dynamo":
            return self.dynamo()
        engine, port = self.engine(ttft, itl)
        if system == "tokenbus-http":
            return self.tokenbus(ttft, itl, engine=(engine, port), **options)
        start = getattr(self, system.replace("-", "_"))
        url, pids = start(port)
        return Running(url, pids, engine)

    def engine(self, ttft, itl):
        """The simulated engine with an HTTP endpoint; its process id and port."""
        port = free_port()
        command = [self.tool, "sim-server", "--listen", f"127.0.0.1:{port}"]
        child = self.processes.start("engine", command + ["--model", MODEL, "--ttft", ttft, "--itl", itl])
        self.processes.await_page(f"http://127.0.0.1:{port}/health")
        return child.pid, port

    def floor(self, itl):
        """The least that a server can cost that writes each token to a connection of its own. It has no engine."""
        port = free_port()
        command = [self.tool, "floor-server", "--listen", f"127.0.0.1:{port}"]
        child = self.processes.start("floor", command + ([] if itl == "0" else ["--itl", itl]))
        self.processes.await_port(port)
        return Running(f"http://127.0.0.1:{port}/v1", {"floor": [child.pid]})

    def direct(self, port):
        """No proxy at all."""
        return f"http://127.0.0.1:{port}/v1", {}

    def nats(self):
        """nats-server with the configuration that deploy/ has for it."""
        with open(os.path.join(HERE, "..", "..", "deploy", "nats.conf"), encoding="utf-8") as file:
            text = file.read()
        port, store = free_port(), os.path.join(self.processes.folder, "nats")
        text = re.sub(r"(?m)^port:.*$", f"host: 127.0.0.1\nport: {port}", text)
        text = re.sub(r"(?m)^http:.*$", "", text)
        text = re.sub(r'store_dir: "[^"]*"', f'store_dir: "{store}"', text)
        config = os.path.join(self.processes.folder, "nats.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)
        child = self.processes.start("nats", [self.nats_server, "-c", config])
        self.processes.await_port(port)
        return child.pid, f"nats://127.0.0.1:{port}"

    def tokenbus(self, ttft, itl, engine, workers=1, slots=SLOTS, stagger_ms=0):
        """A gateway, nats-server, a coordinator and workers. `stagger_ms` makes each worker's time to first
        token so much longer than the last one's, so that their steps do not coincide."""
        nats, bus = self.nats()
        # As with all peers, only warnings are logged, and no line for each request.
        role = lambda name, *flags: self.processes.start(
            name, [self.binary, name.split("-")[0], "--log", "warn", "--nats", bus, *flags]
        )
        port, status = free_port(), free_port()
        coordinator = role("coordinator", "--listen", f"127.0.0.1:{status}")
        gateway = role("gateway", "--listen", f"127.0.0.1:{port}")
        ids = []
        for number in range(workers):
            flags = ["--model", MODEL, "--slots", slots, "--id", f"worker-{number}"]
            if engine:
                flags += ["--engine", "openai", "--url", f"http://127.0.0.1:{engine[1]}/v1"]
            else:
                first = f"{milliseconds(ttft) + number * stagger_ms}ms"
                flags += ["--engine", "sim", "--sim-ttft", first, "--sim-itl", itl]
            ids.append(role(f"worker-{number}", *flags).pid)
        url = f"http://127.0.0.1:{port}/v1"
        self.processes.await_page(f"{url}/models", f'"{MODEL}"')
        capacity = f"http://127.0.0.1:{status}/capacity"
        for number in range(workers):
            self.processes.await_page(capacity, f"worker-{number}")
        pids = {"gateway": [gateway.pid], "nats": [nats], "worker": ids, "coordinator": [coordinator.pid]}
        return Running(url, pids, engine[0] if engine else None)

    def statuses(self, workers):
        """A coordinator and a gateway, and the statuses of workers that are not there."""
        _, bus = self.nats()
        role = lambda name, *flags: self.processes.start(name, [self.binary, name, "--nats", bus, *flags])
        status = free_port()
        pids = {
            "coordinator": role("coordinator", "--listen", f"127.0.0.1:{status}").pid,
            "gateway": role("gateway", "--listen", f"127.0.0.1:{free_port()}").pid,
        }
        self.processes.start("fleet", [self.tool, "fleet", "--nats", bus, "--workers", workers])
        self.processes.await_page(f"http://127.0.0.1:{status}/capacity", f"fleet-{workers - 1:05}")
        return pids

    def nginx(self, port):
        """nginx with two processes, as an operator would tune it for event streams."""
        own, folder = free_port(), os.path.join(self.processes.folder, "nginx")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(HERE, "..", "nginx.conf.in"), encoding="utf-8") as file:
            text = file.read()
        for name, value in (("@RUN@", folder), ("@PORT@", own), ("@ENGINE@", f"127.0.0.1:{port}")):
            text = text.replace(name, str(value))
        config = os.path.join(folder, "nginx.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)
        child = self.processes.start("nginx", ["nginx", "-p", folder, "-c", config, "-g", "daemon off;"])
        self.processes.await_page(f"http://127.0.0.1:{own}/health")
        return f"http://127.0.0.1:{own}/v1", {"nginx": family(child.pid)}

    def sglang_router(self, port):
        """SGLang's router."""
        return self.router("sglang-router", port, ["launch", "--disable-circuit-breaker"])

    def smg(self, port):
        """The Shepherd model gateway, SGLang's router's successor."""
        return self.router("smg", port, ["launch", "--disable-circuit-breaker"])

    def vllm_router(self, port):
        """vLLM's router."""
        return self.router("vllm-router", port, ["--disable-circuit-breaker"])

    def router(self, name, port, flags):
        """The three are of one family, and so are their flags. Caps on requests are lifted."""
        own, metrics = free_port(), free_port()
        command = [os.path.join(self.cache, name, "bin", name), *flags]
        command += ["--host", "127.0.0.1", "--port", own, "--prometheus-port", metrics]
        command += ["--worker-urls", f"http://127.0.0.1:{port}", "--policy", "round_robin"]
        command += ["--max-concurrent-requests", 20000, "--log-level", "error" if name == "vllm-router" else "warn"]
        child = self.processes.start(name, command)
        url = f"http://127.0.0.1:{own}"
        # It answers before it knows its worker.
        self.processes.await_true(f"{name} does not serve the model,", lambda: answers(self.tool, f"{url}/v1"))
        return f"{url}/v1", {name: family(child.pid)}

    def litellm(self, port):
        """LiteLLM's proxy, one process."""
        own, config = free_port(), os.path.join(self.processes.folder, "litellm.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n"
                f"      api_base: http://127.0.0.1:{port}/v1\n      api_key: unused\n"
                "litellm_settings:\n  telemetry: false\n"
            )
        command = [os.path.join(self.cache, "litellm", "bin", "litellm"), "--config", config]
        environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        environment["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        child = self.processes.start(
            "litellm", command + ["--host", "127.0.0.1", "--port", own, "--num_workers", 1], environment
        )
        url = f"http://127.0.0.1:{own}/v1"
        self.processes.await_true("litellm does not serve the model,", lambda: answers(self.tool, url))
        return url, {"litellm": family(child.pid)}


    def dynamo(self):
        """Dynamo over NATS, with its own mock engine (it has no other way to a simulated one), which keeps its own
        time and counts as ours does."""
        python, model = os.path.join(self.cache, "dynamo", "bin", "python"), os.path.join(self.processes.folder, "model")
        made = subprocess.run([python, os.path.join(HERE, "dynamo_model.py"), model], capture_output=True, text=True)
        if made.returncode:
            raise Failed(f"dynamo_model.py: {made.stderr.strip()[-300:]}")
        nats, bus = self.nats()
        environment = {
            "NATS_SERVER": bus,
            "DYN_FILE_KV": os.path.join(self.processes.folder, "kv"),
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_REQUEST_PLANE": "nats",
            "DYN_EVENT_PLANE": "nats",
            "DYN_SYSTEM_PORT": "-1",
            "HF_HUB_OFFLINE": "1",
        }
        flags = ["--model-path", model, "--model-name", MODEL, "--max-num-seqs", SLOTS]
        mocker = self.processes.start(
            "mocker", [python, "-m", "dynamo.mocker", *flags, "--num-gpu-blocks-override", 100_000], environment
        )
        own = free_port()
        frontend = self.processes.start(
            "frontend", [python, "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", own], environment
        )
        url = f"http://127.0.0.1:{own}/v1"
        self.processes.await_true("dynamo does not serve the model,", lambda: answers(self.tool, url))
        return Running(url, {"frontend": family(frontend.pid), "nats": [nats], "mocker": family(mocker.pid)})


def answers(binary, url):
    """Whether one request is answered as it should be."""
    command = [binary, "bench", "--url", url, "--model", MODEL, "--concurrency", 1, "--requests", 1]
    command += ["--max-tokens", 2, "--check", "stream", "--usage", "false", "--timeout", "5s"]
    run = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run.returncode == 0


def milliseconds(duration):
    """A flag like 20ms, 1s or 0 as a number."""
    found = re.fullmatch(r"(\d+)(ms|s|)", duration)
    if not found:
        raise Failed(f"not a duration: {duration}")
    return int(found[1]) * (1000 if found[2] == "s" else 1)
