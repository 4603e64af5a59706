"""Prometheus beside the cluster: it finds every role, the alert rules and the dashboards' questions mean something."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from .cluster import DEPLOY, Failed, call

PROMETHEUS = "http://127.0.0.1:9090/api/v1/"
# What only some clusters have: a simulated engine has no prompt cache and no KV cache, and nothing is refused here.
MAYBE_EMPTY = ("cached", "kv_used", "refusals", "republishes", "estimated_wait")


def asked(path, **query):
    try:
        with urllib.request.urlopen(PROMETHEUS + path + "?" + urllib.parse.urlencode(query), timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise Failed(f"Prometheus: {path} {query}: {error.read().decode()[:300]}") from None
    except OSError:
        return None


def targets():
    """The roles that Prometheus reads, and how many of each."""
    count = {}
    for target in (asked("targets") or {}).get("activeTargets", []):
        if target["health"] == "up":
            count[target["labels"]["job"]] = count.get(target["labels"]["job"], 0) + 1
    return count


def questions():
    """Every expression of the dashboards, for the model `sim`."""
    for name in ("cluster", "model"):
        with open(os.path.join(DEPLOY, "observability", "grafana", f"{name}.json"), encoding="utf-8") as file:
            for panel in json.load(file)["panels"]:
                for target in panel.get("targets", []):
                    yield target["expr"].replace("$model", "sim")


def lint(container, address):
    """promtool's opinion of a role's metrics. It knows only the older text form, where counters are called by their series."""
    text = call("docker", "exec", container, "wget", "-qO-", address)
    for counter in re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE):
        text = re.sub(rf"^# (HELP|TYPE) {counter} ", rf"# \1 {counter}_total ", text, flags=re.MULTILINE)
    text = re.sub(r"^# (UNIT|EOF).*\n?", "", text, flags=re.MULTILINE)
    words = ["docker", "exec", "-i", container, "promtool", "check", "metrics"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=30)
    if done.returncode != 0 or len(text) < 1000:
        raise Failed(f"promtool check metrics {address}: {(done.stdout + done.stderr)[:500]}")


def prometheus(cluster):
    """Under load: all roles are read, no rule is broken, no question of a dashboard is empty, and nothing counts twice."""
    files = ["compose.yaml", "harness/sim.yaml", "compose.observability.yaml"]
    watched = type(cluster)(cluster.binary, files, cluster.port, {"GRAFANA_PASSWORD": "unused"})
    try:
        watched.compose("up", "-d", "--no-deps", "prometheus")
        metrics = watched.containers("prometheus")[0]
        deadline = time.monotonic() + 60
        while targets() != {"gateway": 2, "coordinator": 2}:
            if time.monotonic() > deadline:
                raise Failed(f"Prometheus {metrics} reads {targets()}")
            time.sleep(1)
        for address in ("http://gateway:8080/metrics", "http://coordinator:8081/metrics"):
            lint(metrics, address)
        with watched.load(40) as load:
            time.sleep(36)
            empty = [one for one in questions() if not asked("query", query=one)["result"]]
            rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
        load.none_failed("beside Prometheus")
        broken = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
        unknown = [one for one in empty if not any(word in one for word in MAYBE_EMPTY)]
        if broken or unknown or not rules:
            raise Failed(f"rules that fail: {broken}; questions without an answer: {unknown}")
        firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
        if firing:
            raise Failed(f"a well cluster is alarmed: {firing}")
        # Both coordinators know of the workers, and only the leader tells what they count.
        [[_, workers]] = [one["value"] for one in asked("query", query="count(tokenbus_worker_slots)")["result"]] or [[0, 0]]
        if int(workers) != 2:
            raise Failed(f"{workers} workers are counted, of 2")
        return f"2 gateways and 2 coordinators read, {len(rules)} rules, {len(list(questions()))} questions answered"
    finally:
        watched.compose("rm", "--stop", "--force", "--volumes", "prometheus", check=False)
