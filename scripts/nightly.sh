#!/usr/bin/env bash
# The tests that are too long for every change, at their full size and by the optimized build: storms of kills on
# every database, the move of 100,000 events, 200,000 simulated histories. Takes about an hour on two cores.
# Arguments choose tests: scripts/nightly.sh copy::
set -euo pipefail
cd "$(dirname "$0")/.."
export TIDEHOOK_STORM_RUNS=500 TIDEHOOK_STORM_SECONDS=60
export TIDEHOOK_COPY_EVENTS=100000
export TIDEHOOK_SEEDS=200000
[ $# -gt 0 ] || set -- storm:: thirty_kills a_live_sqlite_server every_seed
scripts/test.sh --release --test it -- --test-threads 1 "$@"
