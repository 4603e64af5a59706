"""From runs to medians, ratios and Markdown. Pure."""

import statistics

from .scenarios import SCENARIOS

NAMES = {
    "tokenbus-sim": "**tokenbus**, engine in the worker",
    "tokenbus-http": "**tokenbus**, HTTP engine",
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
    floor = rows.get("nginx", {}).get(compared)
    has_ratio = floor and compared.startswith("cpu")
    headings = [heading for _, heading, _ in wanted.columns]
    if has_ratio:
        headings.insert(1, "× nginx")
    lines = [f"### {wanted.title}", "", wanted.note, ""]
    lines += ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for system, row in rows.items():
        cells = [show(row[key], form) for key, _, form in wanted.columns]
        if has_ratio:
            cells.insert(1, f"{row[compared] / floor:.2f}")
        lines.append(f"| {NAMES.get(system, system)} | " + " | ".join(cells) + " |")
    lines.append("")
    for system, row in rows.items():
        if len(row["parts_us"]) > 1:
            shares = ", ".join(f"{name} {value:.1f}" for name, value in row["parts_us"].items() if value is not None)
            lines += [f"{NAMES.get(system, system).replace('**', '')}, µs by process: {shares}.", ""]
    return "\n".join(lines)


def document(result):
    """All tables, with what they were measured on."""
    machine, runs = result["machine"], result["runs"]
    rounds = max((run["round"] for run in runs), default=0)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    head = (
        f"{machine['cpus']} cores ({machine['cpu']}), {machine['system']}; medians of {rounds} "
        f"round{'s' if rounds != 1 else ''}, interleaved; {versions}."
    )
    command = f"`{result['command']}`"
    sections = [table(runs, scenario) for scenario in SCENARIOS if any(run["scenario"] == scenario for run in runs)]
    skipped = [f"- {name}: {reason}" for name, reason in result["skipped"].items()]
    if skipped:
        sections.append("Not measured:\n\n" + "\n".join(skipped) + "\n")
    return "\n".join([head, "", f"Regenerate with {command}.", "", *sections]).rstrip() + "\n"


def splice(text, body, name):
    """`text` with what stands between the two comments of this name replaced by `body`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{begin} and {end} are not both there")
    return f"{before}{begin}\n{body}{end}{after}"
