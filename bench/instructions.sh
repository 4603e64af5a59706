#!/usr/bin/env bash
# The regression guard that no other load disturbs: instructions per token of codec, demultiplexer (to HTTP/1.1 and
# HTTP/2), event encoder, placement, and the worker's reader of an engine's streams, counted by valgrind and compared
# with bench/instructions.txt.
#
#   bench/instructions.sh            fails where a figure has grown by more than the tolerance
#   bench/instructions.sh --bless    writes the figures as the new baseline
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if ! command -v valgrind >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "installing valgrind"
        { apt-get install -y --no-install-recommends valgrind ||
            { apt-get update && apt-get install -y --no-install-recommends valgrind; }; } >/dev/null 2>&1 || true
    fi
    if ! command -v valgrind >/dev/null; then
        echo "skipped: valgrind is not installed and could not be (apt-get install valgrind)"
        exit 0
    fi
fi

# The same build wherever and however tokenbus itself is built: what is compared is the code, not the linker's wit.
export CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=1 CARGO_PROFILE_BENCH_DEBUG=0
built=$(cd "$here/.." && cargo bench --locked --no-run --message-format=json -p tokenbus-gateway -p tokenbus-worker --bench instructions)
exec env PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 \
    python3 -m harness.instructions "$@" <<<"$built"
