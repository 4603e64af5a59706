"""The command line: which systems and scenarios, how often, and where the figures go."""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import quiet, scenarios, table
from .processes import Failed, Processes
from .systems import Starter

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", ".."))
USUAL = ["nginx", "sglang-router", "smg", "vllm-router"]
LARGE = ["litellm", "dynamo"]


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(prog="bench/peers.sh", description="Measure tokenbus and its peers side by side.")
    listed = lambda text: [part for part in text.split(",") if part]
    parser.add_argument("--only", type=listed, default=list(scenarios.SCENARIOS), metavar="a,b,…", help="scenarios [all: " + ",".join(scenarios.SCENARIOS) + "]")
    parser.add_argument("--systems", type=listed, metavar="X,Y", help="systems [" + ",".join(["floor"] + scenarios.OURS + USUAL) + "; also direct]")
    parser.add_argument("--all", action="store_true", help="LiteLLM and Dynamo too (large downloads)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds, interleaved [3]")
    parser.add_argument("--bin", metavar="FILE", help="the tokenbus to measure [built with cargo build --release]")
    parser.add_argument("--tool", metavar="FILE", help="the tokenbus that makes the load and is the engine [--bin]")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of one measurement, instead of each scenario's own")
    parser.add_argument("--saturation-tokens", type=int, default=256, metavar="N", help="d: tokens of an answer [256]")
    parser.add_argument("--streams", type=int, default=10_000, metavar="N", help="e: streams [10000]")
    parser.add_argument("--seconds-open", type=int, default=30, metavar="N", help="e: tokens, one a second [30]")
    parser.add_argument("--memory-requests", type=int, default=1_000_000, metavar="N", help="f: requests [1000000]")
    parser.add_argument("--json", metavar="FILE", default=os.path.join(ROOT, "target", "bench", "peers.json"), help="where the figures go [target/bench/peers.json]")
    parser.add_argument("--from", dest="source", metavar="FILE", help="measure nothing: figures of an earlier run")
    parser.add_argument("--append", action="store_true", help="keep what the file of --json has of other scenarios and systems")
    parser.add_argument("--write-readme", action="store_true", help="write the tables into README.md and docs/performance.md")
    parser.add_argument("--cache", metavar="FOLDER", help="where peers are installed [~/.cache/tokenbus/bench]")
    parser.add_argument("--keep-logs", action="store_true", help="keep the folders with the processes' output")
    return parser.parse_args()


class Settings:
    """What scenarios take from the flags."""

    def __init__(self, flags):
        self.flags = flags
        self.saturation_tokens = flags.saturation_tokens
        self.streams = flags.streams
        self.seconds_open = flags.seconds_open
        self.memory_requests = flags.memory_requests

    def seconds(self, _scenario, usual):
        """The length of a measurement."""
        return f"{int((self.flags.seconds or usual) * 1000)}ms"


def say(text):
    """Progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def cache_folder(flags):
    """Where peers are installed."""
    root = flags.cache or os.environ.get("TOKENBUS_BENCH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.abspath(root or os.path.join(base, "tokenbus", "bench"))


def binary(flags):
    """The tokenbus to measure."""
    if not flags.bin:
        say("building tokenbus")
        subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "tokenbus"], cwd=ROOT, check=True)
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
        return os.path.join(target, "release", "tokenbus")
    return os.path.abspath(flags.bin)


def nats_server(tool):
    """nats-server, provisioned as `tokenbus up` does."""
    if os.environ.get("TOKENBUS_NATS_SERVER"):
        return os.environ["TOKENBUS_NATS_SERVER"]
    run = subprocess.run([tool, "provision", "nats"], stdout=subprocess.PIPE, text=True, check=True)
    return re.search(r"(?m)^nats_server=(.*)$", run.stdout)[1]


def install(systems, cache):
    """Installs the peers; why those that do not install are skipped."""
    skipped = {}
    for system in systems:
        if system not in USUAL + LARGE:
            continue
        run = subprocess.run([os.path.join(HERE, "..", "install.sh"), cache, system], stdout=subprocess.PIPE, text=True)
        if run.returncode:
            skipped[system] = (run.stdout.strip().splitlines() or ["install.sh fails"])[-1]
            say(f"skipped: {system}: {skipped[system]}")
    return skipped


def versions(systems, cache, tool):
    """Of everything that is measured."""
    found = {}
    last = lambda command: subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.strip()
    packages = {"dynamo": "ai-dynamo-runtime"}
    for system in systems:
        if system == "nginx":
            found[system] = last(["nginx", "-v"]).rpartition("/")[2]
        elif system in USUAL + LARGE:
            package = packages.get(system, system)
            code = f"import importlib.metadata as m; print(m.version('{package}'))"
            found[system] = last([os.path.join(cache, system, "bin", "python"), "-c", code])
    found["tokenbus"] = last([tool, "--version"]).rpartition(" ")[2]
    return found


def machine():
    """What it ran on."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        found = re.search(r"(?m)^model name\s*: (.*)$", info.read())
        model = found[1] if found else platform.machine()
    return {"cpus": len(os.sched_getaffinity(0)), "cpu": model, "system": f"{platform.system()} {platform.release()}"}


def measure(flags, scenario, system, own, tool, cache, nats):
    """One system in one scenario, once."""
    with own_processes(flags) as processes:
        starter = Starter(own, tool, cache, nats, processes)
        bench = scenarios.Bench(tool, processes, Settings(flags))
        return scenarios.SCENARIOS[scenario].run(starter, bench, system)


@contextlib.contextmanager
def own_processes(flags):
    """Processes with a folder of their own; both are gone afterwards, but for the folder with --keep-logs."""
    folder = tempfile.mkdtemp(prefix="tokenbus-bench-")
    # nginx's workers are another user where root starts it.
    os.chmod(folder, 0o755)
    processes = Processes(folder)
    try:
        yield processes
    finally:
        processes.stop()
        if flags.keep_logs:
            say(f"    logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def plan(flags):
    """Scenarios and, for each, its systems."""
    names = flags.only
    unknown = [name for name in names if name not in scenarios.SCENARIOS]
    if unknown:
        sys.exit(f"no such scenario: {', '.join(unknown)} (there are {', '.join(scenarios.SCENARIOS)})")
    usual = ["floor"] + scenarios.OURS + USUAL + (LARGE if flags.all else [])
    wanted = flags.systems or usual
    known = ["floor"] + scenarios.OURS + USUAL + LARGE + ["direct"]
    strange = [name for name in wanted if name not in known]
    if strange:
        sys.exit(f"no such system: {', '.join(strange)} (there are {', '.join(known)})")
    may = lambda name, system: system in scenarios.SCENARIOS[name].systems or (system == "direct" and name in "ab")
    return [(name, [system for system in wanted if may(name, system)]) for name in names]


def run(flags):
    """All rounds; the result, also where it was interrupted."""
    planned = plan(flags)
    own = binary(flags)
    tool = os.path.abspath(flags.tool) if flags.tool else own
    cache, nats = cache_folder(flags), nats_server(own)
    systems = list(dict.fromkeys(system for _, some in planned for system in some))
    skipped = install(systems, cache)
    result = {
        "schema": "tokenbus.peers/1",
        "machine": machine(),
        "versions": versions([s for s in systems if s not in skipped], cache, own),
        "skipped": skipped,
        "runs": [],
    }
    try:
        for number in range(1, flags.rounds + 1):
            for scenario, some in planned:
                if number > scenarios.SCENARIOS[scenario].most_rounds:
                    continue
                # Another one begins each round, so that none always follows the same one.
                order = [system for system in some if system not in skipped]
                at = (number - 1) % max(1, len(order))
                for system in order[at:] + order[:at]:
                    one(flags, result, number, scenario, system, own, tool, cache, nats)
    except KeyboardInterrupt:
        say("interrupted: only what was measured so far")
        flags.write_readme = False
    return result


def one(flags, result, number, scenario, system, *rest):
    """Measures, and keeps the figures or the reason."""
    began = time.monotonic()
    try:
        found = measure(flags, scenario, system, *rest)
    except Failed as error:
        say(f"round {number}  {scenario}  {system}: {error}")
        result["skipped"][f"{system}, scenario {scenario}"] = str(error)
        return
    result["runs"].append({"round": number, "scenario": scenario, "system": system, "figures": found})
    shown = "  ".join(f"{h}: {table.show(found.get(k), f)}" for k, h, f in scenarios.SCENARIOS[scenario].columns)
    say(f"round {number}  {scenario}  {system:14} {shown}  ({time.monotonic() - began:.0f} s)")
    loud = quiet.remark(found.get("machine", {}))
    if loud:
        say(f"    the machine was not quiet: {loud}")
    if found.get("failed"):
        say(f"    failures: {found.get('failures')}")


def merge(result, path):
    """`result` with what an earlier one has beside it."""
    if not os.path.exists(path):
        return result
    with open(path, encoding="utf-8") as file:
        earlier = json.load(file)
    measured = {(run["scenario"], run["system"]) for run in result["runs"]}
    kept = [run for run in earlier["runs"] if (run["scenario"], run["system"]) not in measured]
    return {
        **result,
        "versions": {**earlier["versions"], **result["versions"]},
        "skipped": {**earlier["skipped"], **result["skipped"]},
        "runs": kept + result["runs"],
    }


def write(result, flags):
    """The figures as JSON, and the tables where they belong."""
    if not result["runs"]:
        say("nothing was measured")
        return
    if not flags.source:
        if flags.append:
            result = merge(result, flags.json)
        save(result, flags.json)
    text = table.document(result)
    print(text, end="")
    if flags.write_readme:
        for path, body in (("README.md", table.summary(result)), ("docs/performance.md", text)):
            write_into(path, body, "bench")


def save(result, path):
    """The figures as JSON."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, ensure_ascii=False)
        file.write("\n")


def write_into(path, body, name):
    """Writes `body` between the two comments `name` of a document."""
    full = os.path.join(ROOT, path)
    with open(full, encoding="utf-8") as file:
        spliced = table.splice(file.read(), body, name)
    with open(full, "w", encoding="utf-8") as file:
        file.write(spliced)


def end_on_signals():
    """Signals to end are as an interrupt from the keyboard: what was started is stopped."""

    def stop(_number, _frame):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def main():
    """From flags to an exit status: 1 where a request failed or a system could not be measured."""
    flags = arguments()
    if not os.path.exists("/proc/self/stat"):
        sys.exit("CPU time and memory of processes are read from /proc: this needs Linux")

    end_on_signals()
    if flags.source:
        with open(flags.source, encoding="utf-8") as file:
            result = json.load(file)
    else:
        result = run(flags)
    write(result, flags)
    failed = any(run["figures"].get("failed") for run in result["runs"])
    return 1 if failed or not result["runs"] else 0


if __name__ == "__main__":
    sys.exit(main())
