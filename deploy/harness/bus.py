"""Three NATS servers with TLS and a user for each role, and a worker of another project."""

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
    workers = ["--worker", "worker-1", "--worker", "worker-2", "--model", "*"]
    call(cluster.binary, "nats-config", bus, *nodes, *workers)
    call("chown", "-R", USER, bus)
    env = {"TOKENBUS_BUS": bus, "TOKENBUS_USER": USER}
    three = Cluster(cluster.binary, ["compose.yaml", "harness/sim.yaml", "compose.cluster.yaml"], cluster.port + 2,
                    {**env, "COMPOSE_PROJECT_NAME": "tokenbus-three"})
    joined = Cluster(cluster.binary, ["compose.worker.yaml", "harness/join.yaml"], 0, {
        **env, "TOKENBUS_ID": "worker-2", "TOKENBUS_NATS": "tls://nats-2:4222,tls://nats-3:4222,tls://nats:4222"})
    try:
        three.up()
        three.wait_for_model()
        lost = three.containers("nats-2")[0]
        said = ["crash of a server " + middle(three, lambda: three.crash(lost), "crash nats-2")]
        said.append("roll of all " + middle(three, lambda: three.roll("nats", "nats-2", "nats-3"), "roll", seconds=45))
        joined.up()

        def leave():
            three.compose("stop", "worker")
            time.sleep(2)

        said.append("moved to another project's worker " + middle(three, leave, "stop worker"))
        peers = call("docker", "exec", three.containers("nats")[0], "wget", "-q", "-O", "-",
                     "http://127.0.0.1:8222/jsz?streams=true&config=true")
        if '"num_replicas": 3' not in peers:
            raise Failed(f"the lease has no three replicas: {peers[:400]}")
        return "; ".join(said)
    finally:
        joined.down()
        three.down()
