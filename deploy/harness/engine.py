"""A Docker engine of the test's own: its data, socket and plugins in one folder, gone at the end."""

import os
import shutil
import signal
import subprocess
import time

from .cluster import Failed, call

# Debian's oldest engine and Compose that are promised to work; Compose of trixie runs on bookworm too.
PACKAGES = ["docker.io", "iptables", "debootstrap"]
PLUGINS = {
    "docker-compose": "usr/libexec/docker/cli-plugins/docker-compose",
    "docker-buildx": "usr/libexec/docker/cli-plugins/docker-buildx",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"


class Engine:
    """A running engine; `with` stops it."""

    def __init__(self, folder, suite="trixie"):
        self.folder, self.suite = folder, suite
        self.socket = f"unix://{folder}/docker.sock"
        self.config = os.path.join(folder, "config-" + suite)

    def __enter__(self):
        self.install()
        self.plugins()
        os.environ.update(DOCKER_HOST=self.socket, DOCKER_CONFIG=self.config, DOCKER_BUILDKIT="1")
        self.log = open(os.path.join(self.folder, "dockerd.log"), "ab")
        self.child = subprocess.Popen(
            ["dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
            + ["--pidfile", f"{self.folder}/docker.pid", "--host", self.socket],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )
        for _ in range(60):
            if call("docker", "info", check=False).strip() and "Server Version" in call("docker", "info", check=False):
                return self
            time.sleep(0.5)
        self.__exit__()
        raise Failed(f"the Docker engine does not start: {self.folder}/dockerd.log")

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)
        self.log.close()

    def install(self):
        """Docker, iptables and debootstrap, where they are missing."""
        if all(shutil.which(name) for name in ("dockerd", "iptables", "debootstrap")):
            return
        call("apt-get", "update", "-qq")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        call("apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES, env=quiet)

    def plugins(self):
        """Compose and BuildKit's client of the suite, unpacked beside the engine."""
        folder = os.path.join(self.config, "cli-plugins")
        if all(os.path.exists(os.path.join(folder, name)) for name in PLUGINS):
            return
        apt = os.path.join(self.folder, "apt-" + self.suite)
        for part in ("lists/partial", "cache/archives/partial", "packages"):
            os.makedirs(os.path.join(apt, part), exist_ok=True)
        os.makedirs(folder, exist_ok=True)
        sources = os.path.join(apt, "sources.list")
        with open(sources, "w", encoding="utf-8") as file:
            file.write(f"deb [signed-by={KEYRING}] {MIRROR} {self.suite} main\n")
        options = []
        for option in (
            f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=/dev/null", f"Dir::State::Lists={apt}/lists",
            f"Dir::Cache={apt}/cache", "Acquire::Check-Valid-Until=false", "APT::Sandbox::User=root",
        ):
            options += ["-o", option]
        call("apt-get", *options, "update", "-qq")
        for name, program in PLUGINS.items():
            packages = os.path.join(apt, "packages")
            subprocess.run(["apt-get", *options, "download", "-qq", name], cwd=packages, check=True)
            found = [file for file in os.listdir(packages) if file.startswith(name + "_")]
            call("dpkg-deb", "-x", os.path.join(packages, found[0]), apt)
            shutil.copy(os.path.join(apt, program), os.path.join(folder, name))

    def versions(self):
        """Of the engine and of Compose."""
        engine = call("docker", "info", "--format", "{{.ServerVersion}}").strip()
        return f"Docker {engine}, Compose {call('docker', 'compose', 'version', '--short').strip()}"
