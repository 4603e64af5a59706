"""Installs the clients that the tests run: python install.py [SET…]

A set is a file of `requirements/` or of `on_demand/`, or a folder with a `package-lock.json` (`node`, …); none is all but
those on demand, which are large. Each has a folder of its own below ~/.cache/tokenbus/clients (or $XDG_CACHE_HOME), named
by what is in it, so it is installed once. Each line of standard output is SET=FOLDER. Exits with 75 when a registry cannot be reached, with 69 when there is no Node.js.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tokenbus" / "clients"
OFFLINE = 75
NO_NODE = 69
OFFLINE_SIGNS = (
    "name resolution", "NameResolutionError", "NewConnectionError", "Network is unreachable", "ConnectTimeoutError",
    "ReadTimeoutError", "ProxyError", "EAI_AGAIN", "ENOTFOUND", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET",
)


def told(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return
    print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    sys.exit(OFFLINE if any(sign in done.stderr for sign in OFFLINE_SIGNS) else 1)


def pip(requirements, folder, *more):
    options = ["--quiet", "--disable-pip-version-check", "--no-warn-conflicts", *more]
    told([sys.executable, "-m", "pip", "install", *options, "--target", folder, "--requirement", requirements], folder)


def slim(requirements, folder):
    """Installs a package that brings its shorter list of requirements with it."""
    pip(requirements, folder, "--no-deps")
    pip(folder / "requirements-slim.txt", folder)


def npm(lock, folder):
    if not shutil.which("node") or not shutil.which("npm"):
        print("Node.js and npm are not installed", file=sys.stderr)
        sys.exit(NO_NODE)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock.parent / name, folder)
    told(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)


def install(name):
    lock = HERE / name / "package-lock.json"
    node = lock.exists()
    demanded = HERE / "on_demand" / f"{name}.txt"
    source = next(path for path in (lock, demanded, HERE / "requirements" / f"{name}.txt") if path.exists())
    how = npm if node else slim if source == demanded else pip
    version = "" if node else "{}.{}".format(*sys.version_info)
    folder = CACHE / f"{name}{version}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"installing {name}", file=sys.stderr)
        # Installed beside it and then named, so that nobody sees half of it.
        fresh = pathlib.Path(tempfile.mkdtemp(dir=CACHE, prefix="."))
        try:
            how(source, fresh)
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # Another was faster, which is as good.
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    print(f"{name}={folder}", flush=True)


requirements = [path.stem for path in (HERE / "requirements").glob("*.txt")]
locks = [path.parent.name for path in HERE.glob("*/package-lock.json")]
for each in sys.argv[1:] or sorted(requirements) + sorted(locks):
    install(each)
