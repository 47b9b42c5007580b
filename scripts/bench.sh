#!/usr/bin/env bash
# The load benchmark: installs qhook 0.6.1 for comparison, starts a durable throw-away Postgres, runs everything and
# prints one JSON object a line. Arguments go to the benchmark: scripts/bench.sh --quick --only deliver
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools
if [ -z "${TIDEHOOK_BENCH_QHOOK:-}" ]; then
  [ -x "$tools/bin/qhook" ] || cargo install --quiet qhook --locked --version 0.6.1 --root "$tools"
  export TIDEHOOK_BENCH_QHOOK=$tools/bin/qhook
fi
if [ -z "${TIDEHOOK_BENCH_POSTGRES:-}" ]; then
  . scripts/postgres.sh
  # What is measured must be durable: unlike the tests' server, this one waits for the disk.
  settings="-c shared_buffers=256MB"
  shopt -s globstar
  # Statements a second are counted where the server brings the means.
  if bin=$(postgres_bin) && compgen -G "$(dirname "$bin")/lib*/**/pg_stat_statements.so" >/dev/null; then
    settings="$settings -c shared_preload_libraries=pg_stat_statements"
  fi
  POSTGRES_SETTINGS=$settings TIDEHOOK_TEST_POSTGRES="" server_ready
  export TIDEHOOK_BENCH_POSTGRES=$TIDEHOOK_TEST_POSTGRES
fi
if [ -z "${TIDEHOOK_BENCH_MARIADB:-}" ]; then
  . scripts/mariadb.sh
  MARIADB_SETTINGS="--innodb-flush-log-at-trx-commit=1" TIDEHOOK_TEST_MYSQL="" mariadb_ready
  export TIDEHOOK_BENCH_MARIADB=$TIDEHOOK_TEST_MYSQL
fi
cargo bench --locked --bench load -- "$@"
