"""Stand-ins for the images that deploy/ names, since the test pulls nothing; ours are then built from the Dockerfile."""

import os
import shutil
import subprocess

from .cluster import DEPLOY, Failed, call
from .engine import MIRROR

# Prebuilt, in place of a build of ten minutes within the container: the rest of the Dockerfile is what users run.
CARGO = "#!/bin/sh\nexec install -D /prebuilt/tokenbus target/release/tokenbus\n"

# What images of others hold, by Debian's packages: nginx with `resolve` and HTTP/2 to its servers is only in sid.
SID = ["nginx", "haproxy", "caddy", "nats-server", "prometheus", "wget", "ca-certificates", "libcap2-bin"]


def there(image):
    return bool(call("docker", "images", "--quiet", image).strip())


def bootstrap(suite, image, folder):
    """A minimal Debian as an image."""
    if there(image):
        return
    root = os.path.join(folder, "root-" + suite)
    shutil.rmtree(root, ignore_errors=True)
    # A mirror that is not the newest is as good for a test.
    call("debootstrap", "--variant=minbase", "--no-check-gpg", suite, root, MIRROR, timeout=600)
    tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["docker", "import", "-", image], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
    if tar.wait() != 0:
        raise Failed(f"{image} was not made")
    shutil.rmtree(root)


def build(folder, image, dockerfile, files=()):
    """An image of a few lines."""
    context = os.path.join(folder, "context")
    shutil.rmtree(context, ignore_errors=True)
    os.makedirs(context)
    for name, source in files:
        shutil.copy(source, os.path.join(context, name))
    with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as file:
        file.write(dockerfile)
    call("docker", "build", "--quiet", "--tag", image, context, timeout=600)
    shutil.rmtree(context)


def stand_ins(folder, binary):
    """All images that the files of deploy/ name and that are not built from them."""
    bootstrap("trixie", "debian:trixie-slim", folder)
    bootstrap("sid", "debian:sid", folder)
    cargo, stripped = os.path.join(folder, "cargo"), os.path.join(folder, "tokenbus")
    with open(cargo, "w", encoding="utf-8") as file:
        file.write(CARGO)
    os.chmod(cargo, 0o755)
    call("strip", "--strip-debug", "-o", stripped, binary)
    install = "RUN apt-get update -o Acquire::Check-Valid-Until=false && apt-get install -y --no-install-recommends"
    build(
        folder,
        "rust:1.95-slim-trixie",
        f"FROM debian:trixie-slim\n{install} binutils ca-certificates\n"
        "COPY cargo /usr/local/bin/cargo\nCOPY tokenbus /prebuilt/tokenbus\n",
        [("cargo", cargo), ("tokenbus", stripped)],
    )
    # Caddy's own image marks its program so.
    build(folder, "caddy:2.11-alpine", f"FROM debian:sid\n{install} {' '.join(SID)}\n"
          "RUN setcap cap_net_bind_service=+ep /usr/bin/caddy\n")
    for image in ("nats:2.12-alpine", "nginx:1.30-alpine", "haproxy:3.2-alpine"):
        call("docker", "tag", "caddy:2.11-alpine", image)
    build(folder, "prom/prometheus:v3.5.0", 'FROM caddy:2.11-alpine\nWORKDIR /prometheus\nENTRYPOINT ["prometheus"]\n')


def trust_here():
    """Certificates that this machine trusts beside the usual ones, as a company's user would copy them."""
    copied, source = [], "/usr/local/share/ca-certificates"
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else []:
        target = os.path.join(DEPLOY, "certificates", name)
        if name.endswith(".crt") and not os.path.exists(target):
            shutil.copy(os.path.join(source, name), target)
            copied.append(target)
    return copied
