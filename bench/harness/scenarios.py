"""What is measured: the load of each scenario, and the figures that come of it."""

import json
import os
import signal
import subprocess
import threading
import time

from . import quiet
from .processes import Failed, cpu_seconds, resident
from .systems import MODEL

PEERS = ["nginx", "sglang-router", "smg", "vllm-router", "litellm"]
OURS = ["tokenbus-sim", "tokenbus-sim-h2", "tokenbus-http", "tokenbus-http-h2"]
# HTTP/2 connections that the streams share: 64 on each.
CONNECTIONS = 8


def protocol(system):
    """The flags of the load generator that make it speak the protocol of `system`'s row."""
    return ["--http2", "--connections", CONNECTIONS] if system.endswith("-h2") else []


class Scenario:
    """A load, the systems that it is for, and the columns of its table."""

    def __init__(self, title, systems, run, columns, note="", most_rounds=1_000_000):
        self.title = title
        self.systems = systems
        self.run = run
        # (key, heading, format); the first one is what is compared.
        self.columns = columns
        self.note = note
        self.most_rounds = most_rounds


class Bench:
    """Runs `tokenbus bench` against a started system."""

    def __init__(self, binary, processes, settings):
        self.binary = binary
        self.processes = processes
        self.settings = settings

    def load(self, running, *flags, system=None, watch=None):
        """One run; its report. Every answer is checked: it is the simulated engine's text, token for token, but for
        Dynamo's own mock engine. LiteLLM's usage comes with an empty choice behind the last one, which no client
        expects: it is not asked for any."""
        check = "stream" if system == "dynamo" else "sim"
        if system == "litellm":
            flags = (*flags, "--usage", "false")
        report = os.path.join(self.processes.folder, "report.json")
        command = [self.binary, "bench", "--url", running.url, "--model", MODEL, "--check", check, "--json", report]
        command += [*flags, *running.flags()]
        machine = quiet.Watch(self.processes)
        child = self.processes.start("bench", command)
        entry = self.processes.children.pop()
        watcher = threading.Thread(target=watch, args=(child,), daemon=True) if watch else None
        try:
            if watcher:
                watcher.start()
            status = child.wait()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        shares = machine.shares()
        self.processes.check()
        if not os.path.exists(report):
            raise Failed(f"tokenbus bench: status {status}: {read(entry[2])}")
        with open(report, encoding="utf-8") as file:
            found = json.load(file)
        os.remove(report)
        found["machine"] = shares
        if status != 0 and found["requests"]["succeeded"] == 0:
            raise Failed(f"no request succeeded: {found['failures'][:2]}")
        return found


def read(path):
    """A small file's text on one line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return " | ".join(file.read().split("\n"))[-600:]


def cpu(report, per):
    """CPU time of the system's own processes, µs for each token or request; in all, and one by one."""
    unit = f"cpu_us_per_{per}"
    parts = {process["name"]: process[unit] for process in report["processes"] if process["name"] != "engine"}
    return sum(parts.values()), parts


def figures(report, per):
    """What every scenario with CPU time tells."""
    total, parts = cpu(report, per)
    engine = [process[f"cpu_us_per_{per}"] for process in report["processes"] if process["name"] == "engine"]
    latency = lambda name, q: (report["latency"][name] or {}).get(q)
    return {
        "cpu_us": total,
        "parts_us": parts,
        "engine_us": engine[0] if engine else None,
        "bench_us": report["bench"][f"cpu_us_per_{per}"],
        "failed": report["requests"]["failed"] + report["requests"]["cut_off"],
        "requests": report["requests"]["succeeded"],
        "requests_per_second": report["requests"]["succeeded_per_second"],
        "tokens_per_second": report["tokens"]["received_per_second"],
        "ttft_p50_us": latency("ttft", "p50_us"),
        "ttft_p99_us": latency("ttft", "p99_us"),
        "itl_p50_us": latency("itl", "p50_us"),
        "itl_p99_us": latency("itl", "p99_us"),
        "failures": report["failures"][:3],
        "machine": report["machine"],
    }


def streams(starter, bench, system):
    """512 streams of 64 tokens, 10 ms each."""
    running = starter.start(system, "20ms", "10ms")
    slow = system in ("litellm", "dynamo")
    # A proxy that is slower than the engine needs a bound in time, not in requests.
    limit = ["--duration", bench.settings.seconds("a", 8), "--timeout", "120s"]
    report = bench.load(
        running, "--concurrency", 512, "--warmup", 0 if slow else 512, "--max-tokens", 64, *limit, *protocol(system),
        system=system,
    )
    return figures(report, "token")


def short(starter, bench, system):
    """Requests of 4 tokens on 64 connections, from an engine without a delay."""
    running = starter.start(system, "0", "0")
    limit = ["--duration", bench.settings.seconds("b", 5), "--timeout", "60s"]
    report = bench.load(
        running, "--concurrency", 64, "--warmup", 2000 if system != "litellm" else 64, "--max-tokens", 4, *limit,
        *protocol(system), system=system,
    )
    return figures(report, "request")


def first_token(starter, bench, system):
    """One connection; the time to the first token without a proxy is measured in the same breath, before and after,
    and taken off."""
    running = starter.start(system, "0", "2ms")
    direct = starter.processes
    engine = engine_url(starter, direct)
    flags = ["--concurrency", 1, "--warmup", 20, "--max-tokens", 4, "--duration", bench.settings.seconds("c", 4)]
    alone = bench.load(bare(engine), *flags)
    through = bench.load(running, *flags, system=system)
    again = bench.load(bare(engine), *flags)
    base = lambda q: (alone["latency"]["ttft"][q] + again["latency"]["ttft"][q]) / 2
    found = figures(through, "request")
    for q in ("p50_us", "p99_us"):
        found[f"added_{q}"] = through["latency"]["ttft"][q] - base(q)
        found[f"direct_{q}"] = base(q)
    return found


def engine_url(starter, processes):
    """Where the engine behind the system listens."""
    for name, child, _ in processes.children:
        if name == "engine":
            arguments = child.args
            return "http://" + arguments[arguments.index("--listen") + 1] + "/v1"
    raise Failed("there is no engine")


class bare:
    """A server without processes that count."""

    def __init__(self, url):
        self.url = url

    def flags(self):
        return []


def saturation(itl):
    """512 streams as fast as it goes."""

    def run(starter, bench, system):
        running = starter.start(system, "20ms", itl)
        tokens = bench.settings.saturation_tokens
        limit = ["--duration", bench.settings.seconds("d", 8), "--timeout", "120s"]
        report = bench.load(running, "--concurrency", 512, "--warmup", 512, "--max-tokens", tokens, *limit)
        return figures(report, "token")

    return run


def many(starter, bench, system):
    """Many open streams on one gateway, each with a token a second."""
    count, tokens = bench.settings.streams, bench.settings.seconds_open
    workers = 10
    slots = -(-count // workers) * 5 // 4
    running = starter.start(system, "20ms", "1s", workers=workers, slots=slots, stagger_ms=1000 // workers)
    # The floor is one process.
    gateway = running.pids.get("gateway", running.pids.get("floor"))[0]
    before, samples = resident(gateway), []

    def watch(_child):
        # In the middle of the run all streams are open.
        time.sleep(tokens * 0.6)
        samples.append(resident(gateway))

    report = bench.load(
        running, "--concurrency", count, "--requests", count, "--max-tokens", tokens, "--timeout", "180s",
        "--settle", 1, watch=watch
    )
    found = figures(report, "token")
    found["added_itl_p99_us"] = found["itl_p99_us"] - 1_000_000
    found["memory_per_stream"] = (samples[0] - before) / count if samples else None
    return found


def starved(starter, bench, system):
    """1,000 streams whose clients have a tenth of a core, beside the same streams with clients that read at once. What
    such a client has not read gathers, so a token should cost less."""
    flags = ["--concurrency", 1000, "--warmup", 1000, "--max-tokens", 64, "--timeout", "120s"]
    flags += ["--duration", bench.settings.seconds("h", 8)]

    def starve(child):
        while child.poll() is None:
            for number, seconds in ((signal.SIGSTOP, 0.09), (signal.SIGCONT, 0.01)):
                try:
                    child.send_signal(number)
                except ProcessLookupError:
                    return
                time.sleep(seconds)

    awake = figures(bench.load(starter.start(system, "20ms", "20ms"), *flags), "token")
    starter.processes.stop()
    found = figures(bench.load(starter.start(system, "20ms", "20ms"), *flags, watch=starve), "token")
    # The whole machine is idle while its client sleeps, so the cost is compared with that of clients that read at once.
    return {**found, "awake_us": awake["cpu_us"], "of_awake": found["cpu_us"] / awake["cpu_us"]}


def statuses(starter, bench, system):
    """What the statuses of a thousand busy workers cost those that read them, in percent of a core."""
    pids = starter.statuses(1000)
    machine, began = quiet.Watch(starter.processes), time.monotonic()
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(float(bench.settings.seconds("g", 15).removesuffix("ms")) / 1000)
    passed = time.monotonic() - began
    found = {f"{name}_share": (cpu_seconds(pid) - before[name]) / passed for name, pid in pids.items()}
    starter.processes.check()
    return {**found, "failed": 0, "machine": machine.shares()}


def memory(starter, bench, system):
    """Memory of every process over very many short requests."""
    running = starter.start(system, "0", "0")
    rows, total = [], bench.settings.memory_requests
    step = max(1, total // 10)
    for number in range(10):
        report = bench.load(running, "--concurrency", 64, "--requests", step, "--max-tokens", 4, "--timeout", "60s")
        used = {name: sum(resident(pid) for pid in pids) for name, pids in running.pids.items()}
        rows.append({"requests": (number + 1) * step, "failed": report["requests"]["failed"], "resident": used})
    first, last = rows[0]["resident"], rows[-1]["resident"]
    growth = {name: last[name] / first[name] - 1 for name in first}
    return {
        "growth": max(growth.values()),
        "growth_by_process": growth,
        "failed": sum(row["failed"] for row in rows),
        "samples": rows,
    }


SCENARIOS = {
    "a": Scenario(
        "512 streams of 64 tokens, one token every 10 ms",
        ["floor"] + OURS + PEERS + ["dynamo"],
        streams,
        [
            ("cpu_us", "CPU µs per token", "{:.1f}"),
            ("tokens_per_second", "tokens/s", "{:,.0f}"),
            ("ttft_p50_us", "TTFT p50 ms", "ms"),
            ("itl_p99_us", "ITL p99 ms", "ms"),
            ("failed", "failed", "{:.0f}"),
        ],
        "CPU time of the proxy's own processes; for tokenbus: gateway, nats-server, worker and coordinator. The floor is a "
        "server that knows its tokens already and does nothing but one `send` for each stream and step. Over HTTP/2, the "
        "streams share 8 connections. Dynamo runs "
        "with its own mock engine, which keeps its own time and is counted, as ours in the worker is.",
    ),
    "b": Scenario(
        "Requests of 4 tokens, 64 connections, an engine without a delay",
        ["floor"] + OURS + PEERS,
        short,
        [
            ("cpu_us", "CPU µs per request", "{:.0f}"),
            ("requests_per_second", "requests/s", "{:,.0f}"),
            ("ttft_p50_us", "TTFT p50 ms", "ms"),
            ("failed", "failed", "{:.0f}"),
        ],
        "Requests per second with the engine and the load generator on the same cores.",
    ),
    "c": Scenario(
        "Added time to first token, 1 connection",
        ["tokenbus-http"] + PEERS,
        first_token,
        [("added_p50_us", "added p50 ms", "ms"), ("added_p99_us", "added p99 ms", "ms"), ("failed", "failed", "{:.0f}")],
        "Over asking the engine directly, in the same run.",
    ),
    "d": Scenario(
        "Saturation: 512 streams, one token every 1 ms",
        ["tokenbus-sim"],
        saturation("1ms"),
        [("tokens_per_second", "tokens/s", "{:,.0f}"), ("cpu_us", "CPU µs per token", "{:.1f}"), ("failed", "failed", "{:.0f}")],
        "One gateway, one nats-server, one worker, the load generator on the same cores.",
    ),
    "d0": Scenario(
        "Saturation: 512 streams without a delay",
        ["tokenbus-sim"],
        saturation("0"),
        [("tokens_per_second", "tokens/s", "{:,.0f}"), ("cpu_us", "CPU µs per token", "{:.1f}"), ("failed", "failed", "{:.0f}")],
        "The same from an engine that is only held back by who reads it.",
    ),
    "e": Scenario(
        "10,000 open streams on one gateway, one token a second each",
        ["floor", "tokenbus-sim"],
        many,
        [
            ("added_itl_p99_us", "added ITL p99 ms", "ms"),
            ("memory_per_stream", "gateway KiB per stream", "kib"),
            ("failed", "failed", "{:.0f}"),
            ("cpu_us", "CPU µs per token", "{:.1f}"),
        ],
        "10 workers; memory resident in the gateway with all streams open, less what it was before.",
    ),
    "f": Scenario(
        "Memory over 1,000,000 short requests",
        ["tokenbus-sim"],
        memory,
        [("growth", "growth", "{:+.1%}"), ("failed", "failed", "{:.0f}")],
        "Resident memory after all of them against after the first tenth, of the process that grew most. One round.",
        most_rounds=1,
    ),
    "g": Scenario(
        "The statuses of 1,000 busy workers",
        ["tokenbus-sim"],
        statuses,
        [("coordinator_share", "coordinator, of a core", "{:.1%}"), ("gateway_share", "each gateway, of a core", "{:.1%}")],
        "Each worker reports once a second, at its own time, a load that changes; the coordinator publishes snapshots.",
    ),
    "h": Scenario(
        "1,000 streams, one token every 20 ms, whose clients have a tenth of a core",
        ["tokenbus-sim"],
        starved,
        [
            ("of_awake", "CPU per token, of that with clients that read at once", "{:.2f}"),
            ("cpu_us", "CPU µs per token", "{:.1f}"),
            ("awake_us", "with clients that read at once", "{:.1f}"),
            ("tokens_per_second", "tokens/s", "{:,.0f}"),
            ("failed", "failed", "{:.0f}"),
        ],
        "The clients' process is stopped for 90 of every 100 ms.",
    ),
}
