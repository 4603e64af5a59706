"""What may happen to each service under load, and what clients may notice of it."""

import threading
import time

from .cluster import CONCURRENCY, Failed, call

# Whole again within this of the last container's start, seconds.
WHOLE_SECONDS = 5


def middle(cluster, act, what, but=0, seconds=12):
    """Does `act` in the middle of a load, of which at most `but` requests may fail."""
    with cluster.load(seconds) as load:
        time.sleep(2)
        act()
    load.none_failed(what, but)
    cluster.answers()
    return f"{load.failed} of {load.failed + load.passed}"


# A gateway's own connections end with it; nobody else's do.
OWN = {"gateway": CONCURRENCY}


def kill(cluster, service):
    """`docker compose kill` of one container, which is started again."""
    victim = cluster.containers(service)[0]

    def act():
        call("docker", "kill", victim)
        time.sleep(1)
        call("docker", "start", victim)

    return middle(cluster, act, f"kill {service}", OWN.get(service, 0))


def crash(cluster, service):
    """The process dies, and the restart policy starts it again."""
    victim = cluster.containers(service)[0]
    return middle(cluster, lambda: cluster.crash(victim), f"crash {service}", OWN.get(service, 0))


def scale(cluster, service):
    """One more, and back."""
    count = len(cluster.containers(service))

    def act():
        for wanted in (count + 2, count):
            cluster.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", f"{service}={wanted}", service)
            time.sleep(1)

    return middle(cluster, act, f"scale {service}", seconds=20)


def pause(cluster, service):
    """Frozen for some seconds: its own connections stand still and go on."""
    victim = cluster.containers(service)[0]

    def act():
        call("docker", "pause", victim)
        time.sleep(6)
        call("docker", "unpause", victim)

    return middle(cluster, act, f"pause {service}")


def disconnect(cluster, service):
    """Cut off from the network for some seconds."""
    victim = cluster.containers(service)[0]
    network = cluster.network(victim)

    def act():
        call("docker", "network", "disconnect", network, victim)
        time.sleep(6)
        call("docker", "network", "connect", "--alias", service, network, victim)

    return middle(cluster, act, f"disconnect {service}", OWN.get(service, 0))


def roll(cluster, service):
    """`deploy/roll`."""
    return middle(cluster, lambda: cluster.roll(service), f"roll {service}", seconds=35)


def recreate(cluster, *services):
    """Compose replaces all containers of services at once: the ingress answers in JSON, and is whole soon after."""
    seen, stop = [], threading.Event()

    def probe():
        while not stop.is_set():
            try:
                status, headers, body = cluster.ask(timeout=30)
                seen.append((time.time(), status, headers, body))
            except OSError as error:
                seen.append((time.time(), type(error).__name__, {}, ""))
            time.sleep(0.1)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        # What streams see is told and not judged: without a worker at all, or an ingress, some must fail.
        with cluster.load(12) as load:
            time.sleep(1)
            cluster.compose("up", "-d", "--no-deps", "--force-recreate", *services)
            started = time.time()
            cluster.wait_for_model(WHOLE_SECONDS)
            whole = time.time() - started
    finally:
        stop.set()
        prober.join()
    for _, status, headers, body in seen:
        if isinstance(status, int) and status >= 500 and not (body.startswith('{"error"') and headers["Retry-After"]):
            raise Failed(f"recreate {services}: status {status} without JSON or Retry-After: {body[:200]}")
    cluster.answers()
    bad = [status for _, status, *_ in seen if status != 200]
    kinds = ", ".join(f"{failure['count']} {failure['kind']} {failure['code']}" for failure in load.report["failures"])
    streams = f"{load.failed} of {load.failed + load.passed} streams" + (f" ({kinds})" if kinds else "")
    return f"{len(bad)} of {len(seen)} probes, {streams}, whole after {max(whole, 0):.1f} s"


def settings_stay(cluster):
    """A second `up -d` keeps the number of containers that the settings name."""
    more = {**cluster.env, "TOKENBUS_GATEWAYS": "3"}
    for _ in range(2):
        call("docker", "compose", "up", "-d", "--no-deps", "gateway", env=more)
    count = len(cluster.containers("gateway"))
    cluster.compose("up", "-d", "--no-deps", "gateway")
    if count != 3 or len(cluster.containers("gateway")) != 2:
        raise Failed(f"{count} gateways and not 3")
    return "3 gateways twice"


def other_ingress(cluster, proxy):
    """Another proxy in front of the same gateways: whole answers, and none lost when a gateway is replaced."""
    other = type(cluster)(cluster.binary, ["compose.yaml", "harness/sim.yaml", f"harness/{proxy}.yaml"], cluster.port)
    other.up("--no-deps", "ingress")
    other.wait_for_model()
    said = middle(other, lambda: other.roll("gateway"), f"{proxy}: roll gateway", seconds=35)
    cluster.up("--no-deps", "ingress")
    return said
