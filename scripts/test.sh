#!/usr/bin/env bash
# All tests, on every store, for real: finds, starts or installs Postgres and MariaDB first, then runs everything.
# Arguments go to `cargo test` and leave the signers from outside away: scripts/test.sh conformance::work
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/postgres.sh
. scripts/mariadb.sh
postgres_ready
mariadb_ready
export TIDEHOOK_TEST_ALL=1
cargo test --locked "$@"
if [ $# -eq 0 ]; then
  tests/peers/run.sh
fi
