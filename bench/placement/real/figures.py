"""From records of requests to figures, and from figures to a table. Pure."""


def shared(one, other):
    """How many tokens two prompts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def best_possible(requests):
    """Tokens that one endless cache would have had of each prompt: the longest beginning that it has in common with a
    prompt and answer that had ended when it came. An engine always reads at least the last token."""
    found = []
    for request in requests:
        prompt = request["tokens"]
        ended = (other for other in requests if other["ended"] <= request["began"])
        most = max((shared(prompt, other["after"]) for other in ended), default=0)
        found.append(min(most, len(prompt) - 1))
    return found


def percentile(values, part):
    """The value below which so much of all is; between two values in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * part
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(records, best):
    """The figures of one run."""
    prompt = sum(record["prompt_tokens"] for record in records)
    cached = sum(record["cached"] for record in records)
    per_worker = {}
    reasons = {}
    for record in records:
        per_worker[record["worker"]] = per_worker.get(record["worker"], 0) + 1
        reason = record["decision"].partition(";")[0]
        reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "requests": len(records),
        "ttft": [record["ttft"] for record in records],
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "best_tokens": sum(best),
        "per_worker": per_worker,
        "reasons": reasons,
        "seconds": max(record["ended"] for record in records) - min(record["began"] for record in records),
    }


def together(runs):
    """The figures of several runs of one policy."""
    times = [time for run in runs for time in run["ttft"]]
    total = lambda name: sum(run[name] for run in runs)
    spread = [max(run["per_worker"].values()) * len(run["per_worker"]) / run["requests"] for run in runs]
    return {
        "rounds": len(runs),
        "requests": total("requests"),
        "p50": percentile(times, 0.5),
        "p90": percentile(times, 0.9),
        "p99": percentile(times, 0.99),
        "cached": total("cached_tokens") / total("prompt_tokens"),
        "of_best": total("cached_tokens") / max(1, total("best_tokens")),
        "read": (total("prompt_tokens") - total("cached_tokens")) / total("requests"),
        "spread": sum(spread) / len(spread),
    }


def document(policies, setting):
    """The text for docs/placement.md: what was run, the targets, the table. `policies` are (key, title, figures)."""
    by_key = {key: figures for key, _, figures in policies}
    lines = [setting, ""]
    lines += targets(by_key)
    lines += [
        "| policy | TTFT p50 / p90 / p99, s | TTFT p50, × prefix | cached of the prompts, % | cached of the best possible, % | tokens read a request | max/mean |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    base = by_key.get("prefix")
    for key, title, figures in policies:
        times = " / ".join(f"{figures[name]:.2f}" for name in ("p50", "p90", "p99"))
        ratio = f"{figures['p50'] / base['p50']:.1f}" if base else "–"
        name = f"**{title}**" if key == "prefix" else title
        lines.append(
            f"| {name} | {times} | {ratio} | {figures['cached']:.1%} | {figures['of_best']:.1%} | {figures['read']:.0f} | {figures['spread']:.2f} |".replace("%", "")
        )
    return "\n".join(lines) + "\n"


def targets(by_key):
    """What is asked for, and whether it is so."""
    if not {"prefix", "random"} <= set(by_key):
        return []
    prefix, rand = by_key["prefix"], by_key["random"]
    asked = [
        ("TTFT p50, random ÷ prefix", "≥ 3", rand["p50"] / prefix["p50"], 3, "{:.1f}"),
        ("cached tokens of the best possible", "≥ 90 %", prefix["of_best"] * 100, 90, "{:.1f} %"),
    ]
    lines = ["| what | target | measured | |", "|---|---:|---:|---|"]
    for what, target, measured, least, form in asked:
        lines.append(f"| {what} | {target} | {form.format(measured)} | {'met' if measured >= least else '**missed**'} |")
    return [*lines, ""]
