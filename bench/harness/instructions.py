"""Counts instructions of the hot path's work under callgrind, and compares them with the recorded ones.

Each work is run twice, with few steps and with many: the difference is the steps' alone. The count does not depend on
the machine's speed or load; it does on the compiler, whose version stands in the file with the figures."""

import argparse
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BASELINE = os.path.join(HERE, "..", "instructions.txt")
# What is counted is exact; what a change of anything else moves is code layout, inlining and a hash map's seed.
TOLERANCE = 0.05
# Another compiler makes other code. Only a loss that is not its doing is to be found then.
FOREIGN_TOLERANCE = 0.30
# Steps of the two runs: the small one warms buffers up.
FEW, MANY = 4, 36
# So small a figure moves by more than the tolerance with a single spilled register.
LEAST = 3


def binaries(messages):
    """The paths of the built binaries, from cargo's messages, in the order of their packages."""
    read = [json.loads(line) for line in messages if line.startswith("{")]
    built = [m for m in read if m.get("executable") and m["target"]["name"] == "instructions"]
    built.sort(key=lambda message: message["package_id"])
    return [message["executable"] for message in built] or sys.exit("cargo built no such binary")


def count(program, name, steps):
    """Instructions of a whole run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, name, str(steps)]
    # glibc chooses its copying routines by the processor; the plainest are everywhere.
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1000000000"}
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    found = re.search(r"Collected *: (\d+)", run.stderr)
    if run.returncode or not found:
        sys.exit(f"{' '.join(command)}: status {run.returncode}: {run.stderr[-500:]}")
    return int(found[1])


def measure(program):
    """Instructions per token or request of each work of a program."""
    listed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    figures = {}
    for line in listed.splitlines():
        name, units = line.split()
        difference = count(program, name, MANY) - count(program, name, FEW)
        figures[name] = round(difference / ((MANY - FEW) * int(units)), 1)
    return figures


def read(path):
    """The recorded figures, and the compiler that they are of."""
    compiler, figures = "", {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# compiler: "):
                compiler = line[12:].strip()
            elif line.strip() and not line.startswith("#"):
                name, figure = line.split()
                figures[name] = float(figure)
    return compiler, figures


def write(path, compiler, figures):
    """Records them."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Instructions per token (placement, codec_request: per request), counted by bench/instructions.sh.\n")
        file.write("# Written by bench/instructions.sh --bless; what has grown wants a reason in the commit.\n")
        file.write(f"# compiler: {compiler}\n")
        for name, figure in figures.items():
            file.write(f"{name:24}{figure:>10}\n")


def judge(now, before, tolerance):
    """A line for each work, and the names of those that have grown too much or are not recorded."""
    lines, worse = [], []
    for name, figure in now.items():
        if name not in before:
            lines.append(f"{name:24}{figure:>10}   not recorded")
            worse.append(name)
            continue
        old = before[name]
        change = figure / old - 1 if old else 0.0
        word = ""
        if figure > old * (1 + tolerance) + LEAST:
            word = "MORE"
            worse.append(name)
        elif figure < old * (1 - tolerance) - LEAST:
            word = "less: --bless keeps it"
        lines.append(f"{name:24}{figure:>10}   was {old:>8}   {change:+.1%}   {word}".rstrip())
    lines.extend(f"{name:24} is recorded and gone: --bless forgets it" for name in before if name not in now)
    return lines, worse


def main():
    """From cargo's messages to an exit status."""
    parser = argparse.ArgumentParser(prog="bench/instructions.sh")
    parser.add_argument("--bless", action="store_true", help="record the figures")
    flags = parser.parse_args()
    version = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]
    compiler = f"rustc {version}, {os.uname().machine}"
    now = {name: figure for program in binaries(sys.stdin) for name, figure in measure(program).items()}
    recorded, before = read(BASELINE) if os.path.exists(BASELINE) else ("", {})
    tolerance = TOLERANCE if recorded == compiler else FOREIGN_TOLERANCE
    lines, worse = judge(now, before, tolerance)
    print("\n".join(lines))
    if flags.bless:
        write(BASELINE, compiler, now)
        print(f"written: {os.path.relpath(BASELINE)}")
        return 0
    if recorded != compiler:
        print(f"recorded with {recorded or 'nothing'}, this is {compiler}: tolerance {tolerance:.0%}")
    if worse:
        print(f"more instructions than recorded (tolerance {tolerance:.0%}): {', '.join(worse)}")
        print("if they are worth it: bench/instructions.sh --bless, and say in the commit what for")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
