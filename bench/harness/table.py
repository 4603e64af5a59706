"""From runs to medians, ratios and Markdown. Pure."""

import statistics

from .scenarios import SCENARIOS

COMMAND = "bench/peers.sh --write-readme"

NAMES = {
    "floor": "*floor*",
    "tokenbus-sim": "**tokenbus**, engine in the worker",
    "tokenbus-sim-h2": "**tokenbus**, engine in the worker, HTTP/2",
    "tokenbus-http": "**tokenbus**, HTTP engine",
    "tokenbus-http-h2": "**tokenbus**, HTTP engine, HTTP/2",
    "direct": "no proxy",
}


def median(values):
    """The median of what was measured; None where nothing was."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def summarise(runs, scenario):
    """For each system of `scenario`, in the order of the scenario: the median of each column, and how often."""
    wanted = SCENARIOS[scenario]
    rows = {}
    for system in wanted.systems:
        mine = [run["figures"] for run in runs if run["scenario"] == scenario and run["system"] == system]
        if mine:
            keys = [key for key, _, _ in wanted.columns]
            rows[system] = {key: median([one.get(key) for one in mine]) for key in keys}
            # A failure is a failure in whichever round.
            rows[system]["failed"] = max(one.get("failed") or 0 for one in mine)
            rows[system]["rounds"] = len(mine)
            rows[system]["parts_us"] = parts([one.get("parts_us") or {} for one in mine])
    return rows


def parts(all_parts):
    """The median of each process's share."""
    names = list(dict.fromkeys(name for one in all_parts for name in one))
    return {name: median([one.get(name) for one in all_parts]) for name in names}


def show(value, form):
    """A figure as text."""
    if value is None:
        return "–"
    if form == "ms":
        return f"{value / 1000:.2f}"
    if form == "kib":
        return f"{value / 1024:.1f}"
    return form.format(value)


def table(runs, scenario):
    """The Markdown of one scenario."""
    wanted, rows = SCENARIOS[scenario], summarise(runs, scenario)
    compared = wanted.columns[0][0]
    # What the first column is compared with, in the order of the headings.
    others = [other for other in ("floor", "nginx") if other in rows and compared.startswith("cpu")]
    headings = [heading for _, heading, _ in wanted.columns]
    headings[1:1] = [f"× {other}" for other in others]
    lines = [f"### {wanted.title}", "", wanted.note, ""]
    lines += ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for system, row in rows.items():
        cells = [show(row[key], form) for key, _, form in wanted.columns]
        cells[1:1] = [show(ratio(runs, scenario, system, other), "{:.2f}") for other in others]
        lines.append(f"| {NAMES.get(system, system)} | " + " | ".join(cells) + " |")
    lines.append("")
    for system, row in rows.items():
        if len(row["parts_us"]) > 1:
            shares = ", ".join(f"{name} {value:.1f}" for name, value in row["parts_us"].items() if value is not None)
            lines += [f"{NAMES.get(system, system).replace('**', '')}, µs by process: {shares}.", ""]
    for run in runs:
        if run["scenario"] == scenario and "samples" in run["figures"]:
            lines += [memory(run["figures"]["samples"]), ""]
    return "\n".join(lines)


def memory(samples):
    """What each process had after the first samples and after the last, on one line."""
    first, last = samples[0], samples[-1]
    told = lambda name: f"{name} {first['resident'][name] / 2**20:.1f} → {last['resident'][name] / 2**20:.1f}"
    named = ", ".join(told(name) for name in first["resident"])
    return f"MiB resident after {first['requests']:,} and after {last['requests']:,} requests: {named}."


def machine(result):
    """What it was measured on, and how to repeat it."""
    on, runs = result["machine"], result["runs"]
    rounds = max((run["round"] for run in runs), default=0)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{on['cpus']} cores ({on['cpu']}), {on['system']}, shared by the engine, the load generator and what is "
        f"measured; medians of {rounds} round{'s' if rounds != 1 else ''}, interleaved; every answer checked. {versions}. "
        f"Regenerate with `{COMMAND}`."
    )


def document(result):
    """All tables: for docs/performance.md."""
    runs = result["runs"]
    sections = [table(runs, scenario) for scenario in SCENARIOS if any(run["scenario"] == scenario for run in runs)]
    skipped = [f"- {name}: {reason}" for name, reason in result["skipped"].items()]
    if skipped:
        sections.append("Not measured:\n\n" + "\n".join(skipped) + "\n")
    return "\n".join([machine(result), "", *targets(runs), *sections]).rstrip() + "\n"


def summary(result):
    """One table of all systems, and a line for each figure of tokenbus alone: for README.md."""
    runs = result["runs"]
    a, b, c = (summarise(runs, scenario) for scenario in "abc")
    headings = ["512 streams: CPU µs per token", "× nginx", "4-token request: CPU µs", "× nginx", "requests/s", "added TTFT p50 / p99, ms"]
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for system in SCENARIOS["a"].systems:
        if not any(system in rows for rows in (a, b, c)):
            continue
        in_nginx = lambda scenario: show(ratio(runs, scenario, system, "nginx"), "{:.2f}")
        cells = [figure(a, system, "cpu_us", "{:.1f}"), in_nginx("a"), figure(b, system, "cpu_us", "{:.0f}"), in_nginx("b")]
        cells.append(figure(b, system, "requests_per_second", "{:,.0f}"))
        added = [figure(c, system, key, "ms") for key in ("added_p50_us", "added_p99_us")]
        cells.append("–" if added == ["–", "–"] else " / ".join(added))
        lines.append(f"| {NAMES.get(system, system)} | " + " | ".join(cells) + " |")
    alone = [(scenario, summarise(runs, scenario).get("tokenbus-sim")) for scenario in ("d", "e", "f")]
    lines.append("")
    for scenario, row in alone:
        if row:
            columns = SCENARIOS[scenario].columns
            told = ", ".join(f"{heading} {show(row[key], form)}" for key, heading, form in columns)
            lines.append(f"- {SCENARIOS[scenario].title}: {told}.")
    return "\n".join(lines).rstrip() + "\n\n" + machine(result) + "\n"


def figure(rows, system, key, form):
    """One cell."""
    return show(rows.get(system, {}).get(key), form)


def ratio(runs, scenario, system, other):
    """One system's CPU time in another's: the median over the rounds that have both. A machine's speed changes from
    minute to minute, so only what was measured close together is compared."""
    found = {}
    for run in runs:
        if run["scenario"] == scenario and run["system"] in (system, other):
            found.setdefault(run["round"], {})[run["system"]] = run["figures"]["cpu_us"]
    return median([one[system] / one[other] for one in found.values() if system in one and one.get(other)])


def targets(runs):
    """Each target that was measured, and whether it is met."""
    rows = {scenario: summarise(runs, scenario) for scenario in SCENARIOS}

    def value(scenario, system, key):
        return rows[scenario].get(system, {}).get(key)

    asked = [
        ("512 streams, engine in the worker: CPU per token in the floor's", "≤ 1.25", ratio(runs, "a", "tokenbus-sim", "floor"), 1.25, "{:.2f}"),
        ("the same over HTTP/2", "≤ 0.35", ratio(runs, "a", "tokenbus-sim-h2", "floor"), 0.35, "{:.2f}"),
        ("512 streams, HTTP engine: CPU per token in nginx's", "≤ 1.2", ratio(runs, "a", "tokenbus-http", "nginx"), 1.2, "{:.2f}"),
        ("the same, in sglang-router's", "≤ 0.75", ratio(runs, "a", "tokenbus-http", "sglang-router"), 0.75, "{:.2f}"),
        ("4-token requests: CPU per request in nginx's", "≤ 1.5", ratio(runs, "b", "tokenbus-sim", "nginx"), 1.5, "{:.2f}"),
        ("the same with an HTTP engine", "≤ 2.2", ratio(runs, "b", "tokenbus-http", "nginx"), 2.2, "{:.2f}"),
        ("4-token requests per second", "≥ 10,000", value("b", "tokenbus-sim", "requests_per_second"), -10_000, "{:,.0f}"),
        ("added TTFT p50, ms", "≤ 0.3", value("c", "tokenbus-http", "added_p50_us"), 300, "ms"),
        ("added TTFT p99, ms", "≤ 0.8", value("c", "tokenbus-http", "added_p99_us"), 800, "ms"),
        ("saturation, tokens/s", "≥ 350,000", value("d", "tokenbus-sim", "tokens_per_second"), -350_000, "{:,.0f}"),
        ("10,000 streams: failures", "0", value("e", "tokenbus-sim", "failed"), 0, "{:.0f}"),
        ("10,000 streams: added ITL p99, ms", "≤ 50", value("e", "tokenbus-sim", "added_itl_p99_us"), 50_000, "ms"),
        ("10,000 streams: gateway memory per stream, KiB", "≤ 16", value("e", "tokenbus-sim", "memory_per_stream"), 16 << 10, "kib"),
        ("1,000 workers' statuses: coordinator, of a core", "≤ 5 %", value("g", "tokenbus-sim", "coordinator_share"), 0.05, "{:.1%}"),
        ("1,000 workers' statuses: each gateway, of a core", "≤ 2 %", value("g", "tokenbus-sim", "gateway_share"), 0.02, "{:.1%}"),
        ("10,000 streams at 1 token/s: CPU per token in the floor's", "≤ 2", ratio(runs, "e", "tokenbus-sim", "floor"), 2, "{:.2f}"),
        ("clients with a tenth of a core: CPU per token, of that with others", "≤ 0.9", value("h", "tokenbus-sim", "of_awake"), 0.9, "{:.2f}"),
        ("memory over 1,000,000 requests", "± 5 %", value("f", "tokenbus-sim", "growth"), 0.05, "{:+.1%}"),
    ]
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    for what, target, measured, bound, form in asked:
        if measured is not None:
            # A bound below zero is a least figure.
            met = measured >= -bound if bound < 0 else measured <= bound
            lines.append(f"| {what} | {target} | {show(measured, form)} | {'met' if met else '**missed**'} |")
    return [*lines, ""] if len(lines) > 2 else []


def splice(text, body, name):
    """`text` with what stands between the two comments of this name replaced by `body`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{begin} and {end} are not both there")
    return f"{before}{begin}\n{body}{end}{after}"
