"""The command line: starts a cluster for each policy in turn, asks the same conversations, compares."""

import argparse
import json
import os
import subprocess
import sys
import time

from harness import quiet
from harness.__main__ import ROOT, binary, end_on_signals, machine, nats_server, own_processes, save, say, write_into
from harness.processes import Failed, free_port
from harness.systems import Starter

from . import client, conversations, figures

# Key, title, whether there is a coordinator, whether prompts are salted.
# Without a coordinator a gateway does not know who is free. Where it knows no prefix either, it publishes to the queue
# group, of which NATS draws a member at random.
POLICIES = [
    ("prefix", "tokenbus", True, False),
    ("load", "tokenbus that knows no prefix", True, True),
    ("random", "random (a NATS queue group)", False, True),
]


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(prog="bench/placement/llama", description="Measure placement with real engines.")
    listed = lambda text: [part for part in text.split(",") if part]
    number = lambda flag, usual, what: parser.add_argument(flag, type=int, default=usual, metavar="N", help=f"{what} [{usual}]")
    parser.add_argument("--policies", type=listed, default=[key for key, *_ in POLICIES], metavar="X,Y", help="policies [" + ",".join(key for key, *_ in POLICIES) + "]")
    number("--rounds", 3, "rounds, interleaved")
    number("--workers", 3, "workers")
    number("--slots", 2, "slots of a worker")
    number("--ctx", 4096, "context of a slot, tokens")
    number("--cache-ram", 128, "memory of a worker for prompts that no slot has, MiB")
    number("--clients", 2, "requests at once")
    number("--systems", 15, "system prompts")
    number("--conversations", 24, "conversations")
    number("--turns", 4, "turns of a conversation")
    number("--open", 15, "conversations that are open at once")
    number("--system-words", 450, "words of a system prompt")
    number("--user-words", 60, "words of a user's message, on average")
    number("--answer-tokens", 16, "most tokens of an answer")
    number("--seed", 1, "the seed of the conversations; each round has another")
    parser.add_argument("--bin", metavar="FILE", help="the tokenbus to measure [built with cargo build --release]")
    parser.add_argument("--json", metavar="FILE", default=os.path.join(ROOT, "target", "bench", "placement-llama.json"), help="where the figures go [target/bench/placement-llama.json]")
    parser.add_argument("--from", dest="source", metavar="FILE", help="measure nothing: figures of an earlier run")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/placement.md")
    parser.add_argument("--keep-logs", action="store_true", help="keep the folders with the processes' output")
    return parser.parse_args()


class Cluster:
    """nats-server, two gateways, workers with llama.cpp, and a coordinator if the policy has one."""

    def __init__(self, flags, own, nats, processes, coordinated):
        _, bus = Starter(own, own, None, nats, processes).nats()
        role = lambda name, *rest: processes.start(name, [own, name.split("-")[0], "--nats", bus, *rest])
        status = free_port()
        if coordinated:
            role("coordinator", "--listen", f"127.0.0.1:{status}")
        self.ports = [free_port(), free_port()]
        for number, port in enumerate(self.ports):
            role(f"gateway-{number}", "--listen", f"127.0.0.1:{port}")
        names = [f"worker-{number}" for number in range(flags.workers)]
        for name in names:
            logs = os.path.join(processes.folder, name)
            engine = ["--engine", "llama", "--model", client.MODEL, "--slots", flags.slots, "--ctx", flags.ctx, "--threads", 1]
            role(name, "--id", name, *engine, "--cache-ram", f"{flags.cache_ram}MiB", "--engine-log-dir", logs)
        for port in self.ports:
            processes.await_page(f"http://127.0.0.1:{port}/v1/models", f'"{client.MODEL}"')
        for name in names:
            log = os.path.join(processes.folder, name + ".log")
            processes.await_true(f"{name} is not ready,", lambda: b"worker ready" in read(log))
            if coordinated:
                processes.await_page(f"http://127.0.0.1:{status}/capacity", f'"{name}"')

    def warm(self):
        """Each engine has answered, so that its first prompt is not slower than others."""
        for _ in range(8):
            for port in self.ports:
                client.ask(port, {"model": client.MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]})


def read(path):
    """A log so far."""
    with open(path, "rb") as file:
        return file.read()


def measure(flags, own, nats, policy, seed):
    """One policy, once, in a cluster of its own."""
    _, _, coordinated, salted = policy
    with own_processes(flags) as processes:
        cluster = Cluster(flags, own, nats, processes, coordinated)
        cluster.warm()
        shape = conversations.Shape(flags.systems, flags.conversations, flags.turns, flags.open, flags.system_words, flags.user_words)
        asked = [conversations.Conversation(shape, number, seed) for number in range(flags.conversations)]
        order = conversations.order(shape, seed, flags.clients)
        asker = client.Asker(cluster.ports, asked, order, salted, flags.answer_tokens)
        watch = quiet.Watch(processes)
        records = asker.run(flags.clients)
        shares = watch.shares()
        processes.check()
        return {**figures.summary(records, best(cluster, records)), "machine": shares, "requests_made": kept(records)}


def best(cluster, records):
    """What an endless cache would have had of each prompt, by the engine's own tokens."""
    requests = []
    for record in records:
        prompt = client.tokens(cluster.ports[0], record["messages"])
        if len(prompt) != record["prompt_tokens"]:
            raise Failed(f"a prompt has {len(prompt)} tokens, and the engine counted {record['prompt_tokens']}")
        answer = {"role": "assistant", "content": record["text"]}
        after = client.tokens(cluster.ports[0], [*record["messages"], answer])
        # What the engine has generated, and nothing that a template writes behind it.
        after = after[: len(prompt) + record["completion_tokens"]]
        requests.append({"tokens": prompt, "after": after, "began": record["began"], "ended": record["ended"]})
    possible = figures.best_possible(requests)
    for record, tokens in zip(records, possible):
        record["best"] = tokens
    return possible


def kept(records):
    """What the file of figures keeps of each request."""
    start = records[0]["began"]
    names = ["conversation", "turn", "gateway", "worker", "decision", "prompt_tokens", "completion_tokens", "cached", "best"]
    rounded = lambda record: {name: round(record[name], 4) for name in ("ttft",)} | {"at": round(record["began"] - start, 3)}
    return [{name: record[name] for name in names} | rounded(record) for record in records]


def run(flags):
    """All rounds."""
    own = binary(flags)
    nats = nats_server(own)
    # What the workers need is installed before anything is measured.
    subprocess.run([own, "provision", "all"], stdout=subprocess.DEVNULL, check=True)
    chosen = [policy for policy in POLICIES if policy[0] in flags.policies]
    if not chosen:
        sys.exit("no such policy: there are " + ", ".join(key for key, *_ in POLICIES))
    result = {"schema": "tokenbus.placement-llama/1", "machine": machine(), "flags": {k: v for k, v in vars(flags).items() if k not in ("bin", "json")}, "runs": []}
    for number in range(flags.rounds):
        # Another one begins each round.
        at = number % len(chosen)
        for policy in chosen[at:] + chosen[:at]:
            began = time.monotonic()
            found = measure(flags, own, nats, policy, flags.seed + number)
            result["runs"].append({"round": number + 1, "policy": policy[0], "figures": found})
            save(result, flags.json)
            shown = figures.together([found])
            say(
                f"round {number + 1}  {policy[0]:7} TTFT p50 {shown['p50']:.2f} p90 {shown['p90']:.2f} p99 {shown['p99']:.2f} s  cached {shown['cached']:.1%}, "
                f"of the best possible {shown['of_best']:.1%}  {found['per_worker']} {found['reasons']}  ({time.monotonic() - began:.0f} s)"
            )
            loud = quiet.remark(found["machine"])
            if loud:
                say(f"    the machine was not quiet: {loud}")
    return result


def read_result(path):
    """The figures of an earlier run."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def setting(result):
    """What was run, in words."""
    flags = argparse.Namespace(**result["flags"])
    rounds = len({run["round"] for run in result["runs"]})
    runs = [run["figures"] for run in result["runs"]]
    mean = sum(run["prompt_tokens"] for run in runs) / sum(run["requests"] for run in runs)
    others = sum(run["machine"]["others"] for run in runs) / len(runs)
    noise = f" Other processes took {others:.0%} of the machine meanwhile.".replace("%", " %") if others > quiet.NOTICED else ""
    machine_words = f"{result['machine']['cpus']} cores of {result['machine']['cpu']}"
    return (
        f"SmolLM2-135M-Instruct on {machine_words}; {flags.workers} workers with one thread, {flags.slots} slots and {flags.cache_ram} MiB of host cache each, "
        f"2 gateways. {flags.conversations} conversations of {flags.turns} turns, {flags.open} open at once, {flags.systems} system prompts, {mean:.0f} tokens a prompt on average, "
        f"{flags.clients} requests at a time; {rounds} {'round' if rounds == 1 else 'rounds'}.{noise}"
    )


def main():
    """From flags to an exit status."""
    flags = arguments()

    end_on_signals()
    try:
        result = read_result(flags.source) if flags.source else run(flags)
    except Failed as error:
        say(f"{error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted: --from reads what was measured so far from the file of --json")
        return 1
    of = lambda key: [run["figures"] for run in result["runs"] if run["policy"] == key]
    shown = [(key, title, figures.together(of(key))) for key, title, *_ in POLICIES if of(key)]
    most = max(figure["rounds"] for _, _, figure in shown)
    few = lambda figure: f", {figure['rounds']} of the rounds" if figure["rounds"] < most else ""
    shown = [(key, title + few(figure), figure) for key, title, figure in shown]
    text = figures.document(shown, setting(result))
    print(text, end="")
    if flags.write_docs:
        write_into("docs/placement.md", text, "real")
    return 0


if __name__ == "__main__":
    sys.exit(main())
