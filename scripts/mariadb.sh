# Finds a MySQL or MariaDB server for the tests, or starts a throw-away one, or installs one and starts it.
# Sourced by scripts/test.sh; sets TIDEHOOK_TEST_MYSQL. Fails when there is still none.
#
#   1. TIDEHOOK_TEST_MYSQL, a URL of a user that may create databases
#   2. a server on 127.0.0.1:3306 that lets `root` in without a password
#   3. a throw-away MariaDB from installed binaries, removed at the end
#   4. Debian's mariadb-server package, then 3

. scripts/free-port.sh
. scripts/apt-install.sh

mariadb_answers() {
  local client
  client=$(command -v mariadb || command -v mysql || true)
  [ -n "$client" ] && "$client" --no-defaults -uroot -h127.0.0.1 -P"$1" -e 'select 1' >/dev/null 2>&1
}

mariadb_stop() {
  if [ -n "${MARIADB_PID:-}" ]; then
    if ! kill -0 "$MARIADB_PID" 2>/dev/null; then
      echo "The throw-away MariaDB server ended before the tests did. The end of its log:" >&2
      tail -n 30 "$MARIADB_DIR/log" >&2
    fi
    kill -9 "$MARIADB_PID" 2>/dev/null || true
    wait "$MARIADB_PID" 2>/dev/null || true
    rm -rf "$MARIADB_DIR"
  fi
}

mariadb_start() {
  MARIADB_DIR=$(mktemp -d)
  chmod 755 "$MARIADB_DIR"
  local user=""
  if [ "$(id -u)" = 0 ]; then
    user="--user=mysql"
    chown mysql "$MARIADB_DIR"
  fi
  local port
  port=$(free_port)
  mariadb-install-db --no-defaults $user --datadir="$MARIADB_DIR/data" --auth-root-authentication-method=normal \
    --skip-test-db --innodb-flush-log-at-trx-commit=0 >"$MARIADB_DIR/log" 2>&1 || { cat "$MARIADB_DIR/log" >&2; return 1; }
  # Durability is not what tests measure; the crash tests kill tidehook and stop servers of their own, not the machine.
  local settings=${MARIADB_SETTINGS:---innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=OFF --innodb-flush-method=O_DSYNC}
  mariadbd --no-defaults $user --datadir="$MARIADB_DIR/data" --port="$port" --bind-address=127.0.0.1 \
    --socket="$MARIADB_DIR/socket" --pid-file="$MARIADB_DIR/pid" --skip-log-bin --max-connections=500 \
    $settings \
    --innodb-buffer-pool-size=256M --innodb-log-file-size=64M --character-set-server=utf8mb4 \
    --collation-server=utf8mb4_unicode_ci >>"$MARIADB_DIR/log" 2>&1 &
  MARIADB_PID=$!
  # Postgres, when it was started before, goes too.
  trap 'mariadb_stop; ! declare -F postgres_stop >/dev/null || postgres_stop' EXIT
  for _ in $(seq 200); do
    mariadb_answers "$port" && break
    sleep 0.1
  done
  mariadb_answers "$port" || { tail -n 30 "$MARIADB_DIR/log" >&2; return 1; }
  export TIDEHOOK_TEST_MYSQL="mysql://root@127.0.0.1:$port/mysql"
}

mariadb_ready() {
  if [ -n "${TIDEHOOK_TEST_MYSQL:-}" ]; then
    return 0
  fi
  if mariadb_answers 3306; then
    export TIDEHOOK_TEST_MYSQL="mysql://root@127.0.0.1:3306/mysql"
    return 0
  fi
  # The server's programs are where an unprivileged PATH does not look.
  PATH="$PATH:/usr/sbin:/usr/local/sbin"
  if ! command -v mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null; then
    echo "No MariaDB found: installing it." >&2
    apt_install mariadb-server
  fi
  command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null ||
    { echo "There is no MariaDB server and none could be installed. Set TIDEHOOK_TEST_MYSQL." >&2; return 1; }
  mariadb_start
}
