"""The image that is a whole cluster, the Debian package, and what Compose refuses."""

import json
import os
import shutil
import stat
import subprocess
import time
import urllib.request

from .cluster import DEPLOY, Cluster, Failed, call

IMAGE = "tokenbus"


def _health(container):
    return call("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip()


def one_container(cluster):
    """Read-only, its state in a volume: it becomes healthy, tells the address that works, answers, and starts again."""
    for round_ in range(2):
        container = call("docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--volume", "one:/var/lib/tokenbus",
                         "--publish", "127.0.0.1:8090:8080", IMAGE, "up", "--listen", "0.0.0.0:8080",
                         "--published", "127.0.0.1:8090", "--no-prompt").strip()
        try:
            deadline = time.monotonic() + 90
            while _health(container) != "healthy" or "is served at" not in _err(container):
                if time.monotonic() > deadline:
                    raise Failed(f"the container is {_health(container)}: {_err(container)[-800:]}")
                time.sleep(0.5)
            if "http://127.0.0.1:8090/v1" not in _err(container):
                raise Failed(f"it does not tell the address that works: {_err(container)[-500:]}")
            body = json.dumps({"model": "smollm2-135m-instruct", "max_tokens": 8,
                               "messages": [{"role": "user", "content": "Say hello."}]})
            request = urllib.request.Request("http://127.0.0.1:8090/v1/chat/completions", body.encode(),
                                             {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                if not json.load(answer)["choices"][0]["message"]["content"]:
                    raise Failed("an empty answer")
            kept = call("docker", "exec", container, "ls", "/var/lib/tokenbus")
            if "clusters" not in kept:
                raise Failed(f"its state is not in the volume: {kept}")
        finally:
            call("docker", "rm", "--force", container)
    call("docker", "volume", "rm", "one")
    return "twice on one volume"


def _err(container):
    """What it logged, on both outputs."""
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


# Installs the package on a bare Debian, uses it, keeps a changed setting over a second installation, and removes it.
PACKAGE = """set -eu
dpkg --install /files/*.deb >/dev/null
tokenbus --version
tokenbus keys --help >/dev/null
for role in gateway worker coordinator; do
    unit=/usr/lib/systemd/system/tokenbus-$role.service
    program=$(sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p' $unit)
    "$program" $role --help >/dev/null
done
echo '# changed' >> /etc/tokenbus/tokenbus.toml
dpkg --install /files/*.deb >/dev/null
grep -q '# changed' /etc/tokenbus/tokenbus.toml
dpkg --remove tokenbus >/dev/null
test ! -e /usr/bin/tokenbus
test -e /etc/tokenbus/tokenbus.toml
dpkg --purge tokenbus >/dev/null
test ! -e /etc/tokenbus/tokenbus.toml
"""


def debian_package(cluster, folder):
    """The .deb that `deploy/release` makes, in a container that has nothing else."""
    files = os.path.join(folder, "files")
    shutil.rmtree(files, ignore_errors=True)
    call(os.path.join(DEPLOY, "release"), "--binary", cluster.binary, files)
    said = call("docker", "run", "--rm", "--network", "none", "--volume", f"{files}:/files:ro", "debian:trixie-slim",
                "sh", "-c", PACKAGE)
    shutil.rmtree(files)
    return f"installed twice, removed, purged: {said.strip()}"


def no_keys_no_start(cluster):
    """A cluster that others could reach does not start without keys, and says why."""
    open_to_all = Cluster(cluster.binary, ["compose.yaml"], cluster.port + 1, {"TOKENBUS_BIND": "0.0.0.0"})
    words = ["docker", "compose", "run", "--rm", "--no-deps", "gateway"]
    done = subprocess.run(words, env={**os.environ, **open_to_all.env}, capture_output=True, text=True, check=False)
    if done.returncode != 2 or "--keys" not in done.stdout + done.stderr:
        raise Failed(f"status {done.returncode}: {done.stdout}{done.stderr}")
    return "status 2"


def private_clone(cluster):
    """From a clone whose files only their owner may read: the images are built and run."""
    copy = "/tmp/tokenbus-private-clone"
    shutil.rmtree(copy, ignore_errors=True)
    root = os.path.dirname(DEPLOY)
    try:
        for name in call("git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
            source, target = os.path.join(root, name), os.path.join(copy, name)
            if os.path.exists(source):
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                shutil.copy(source, target)
                os.chmod(target, stat.S_IMODE(os.stat(source).st_mode) & 0o700)
        files = ":".join(os.path.join(copy, "deploy", file) for file in ("compose.yaml", "harness/sim.yaml"))
        env = {**cluster.env, "COMPOSE_FILE": files}
        call("docker", "compose", "build", "nats", "ingress", "coordinator", env=env, timeout=600)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    cluster.up("--force-recreate")
    cluster.wait_for_model()
    cluster.answers()
    return "built and served"
