"""Three NATS servers with TLS and a user for each role, and workers of other projects, one behind a leaf node."""

import os
import shutil
import time

from .cluster import Cluster, Failed, call
from .faults import middle

# Whoever unpacked the credentials, which are readable for their owner alone.
USER = "1000"


def three_servers(cluster, folder):
    """Losing a server, replacing all of them, and moving all work to a worker of another project."""
    bus = os.path.join(folder, "bus")
    shutil.rmtree(bus, ignore_errors=True)
    nodes = ["--node", "nats", "--node", "nats-2", "--node", "nats-3", "--server-folder", "/etc/nats"]
    workers = ["--worker", "w1", "--worker", "w2", "--model", "*"]
    call(cluster.binary, "nats-config", bus, *nodes, *workers)
    call("chown", "-R", USER, bus)
    env = {"TOKENBUS_BUS": bus, "TOKENBUS_USER": USER}
    three = Cluster(cluster.binary, ["compose.yaml", "harness/sim.yaml", "compose.cluster.yaml"], cluster.port + 2,
                    {**env, "COMPOSE_PROJECT_NAME": "tokenbus-three"})
    joined = Cluster(cluster.binary, ["compose.worker.yaml", "harness/join.yaml"], 0, {
        **env, "TOKENBUS_ID": "w2", "TOKENBUS_NATS": "tls://nats-2:4222,tls://nats-3:4222,tls://nats:4222"})
    leaf = {**env, "TOKENBUS_NATS": "nats://leaf:4222", "LEAF_HUBS": '["tls://nats-2:7422", "tls://nats-3:7422"]'}
    files = ["compose.worker.yaml", "compose.leaf.yaml", "harness/join.yaml"]
    behind = Cluster(cluster.binary, files, 0, {**leaf, "TOKENBUS_ID": "w2"})
    try:
        three.up()
        three.wait_for_model()
        lost = three.containers("nats-2")[0]
        said = ["crash of a server " + middle(three, lambda: three.crash(lost), "crash nats-2")]
        said.append("roll of all " + middle(three, lambda: three.roll("nats", "nats-2", "nats-3"), "roll", seconds=45))
        for name, other in (("another project's worker", joined), ("a worker behind a leaf node", behind)):
            other.up()

            def leave():
                three.compose("stop", "worker")
                time.sleep(2)

            said.append(f"moved to {name} " + middle(three, leave, f"stop worker for {name}"))
            three.compose("start", "worker")
            three.wait_for_model()
            if other is joined:
                other.down()
        hub = three.containers("nats-2")[0]
        said.append("crash of the leaf's server " + middle(three, lambda: three.crash(hub), "crash of the leaf's server"))
        return "; ".join(said)
    finally:
        for other in (behind, joined, three):
            other.down()

