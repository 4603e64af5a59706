#!/usr/bin/env bash
# Measures tokenbus and its peers side by side, against the same simulated engine: see README.md here.
#
#   bench/peers.sh                        everything, 3 rounds; the tables on standard output
#   bench/peers.sh --only a --systems tokenbus-sim,nginx --rounds 3 --bin target/release/tokenbus
#   bench/peers.sh --write-readme         and write them into README.md and docs/performance.md
#   bench/peers.sh --help                 all flags
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

command -v python3 >/dev/null || { echo "python3 is not installed" >&2; exit 1; }
# Installing is a shell's work (install.sh); measuring is Python's.
exec env PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 python3 -m harness "$@"
