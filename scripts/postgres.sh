# Finds a Postgres server for the tests, or starts a throw-away one, or installs one and starts it.
# Sourced by scripts/test.sh; sets TIDEHOOK_TEST_POSTGRES, and TIDEHOOK_TEST_POOLER, a PgBouncer in transaction mode before
# it. Fails when there is still none.
#
#   1. TIDEHOOK_TEST_POSTGRES, a URL of a role that may create databases
#   2. a server on 127.0.0.1:5432 that lets `postgres` in
#   3. a throw-away server from installed binaries, removed at the end
#   4. Debian's postgresql package, then 3
#
# PgBouncer is started from an installed binary, or from Debian's package; TIDEHOOK_TEST_POOLER names one that runs.

. scripts/free-port.sh
. scripts/apt-install.sh

postgres_bin() {
  local dir
  for dir in "$(command -v initdb >/dev/null && dirname "$(readlink -f "$(command -v initdb)")")" /usr/lib/postgresql/*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql*/bin; do
    [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && { echo "$dir"; return 0; }
  done
  return 1
}

postgres_answers() {
  local client
  client=$(command -v psql || true)
  [ -n "$client" ] && "$client" -w "$1" -c 'select 1' >/dev/null 2>&1
}

postgres_stop() {
  [ -z "${POOLER_PID:-}" ] || kill "$POOLER_PID" 2>/dev/null || true
  [ -z "${POOLER_DIR:-}" ] || rm -rf "$POOLER_DIR"
  if [ -n "${POSTGRES_DIR:-}" ]; then
    if ! postgres_as "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DIR/data" status >/dev/null 2>&1; then
      echo "The throw-away Postgres server ended before the tests did. The end of its log:" >&2
      tail -n 30 "$POSTGRES_DIR/log" >&2
    fi
    postgres_as "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DIR/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$POSTGRES_DIR"
  fi
}

# The server refuses to run as root, so root hands it to an unprivileged user.
postgres_as() {
  if [ "$(id -u)" = 0 ]; then
    runuser -u "$POSTGRES_USER_NAME" -- "$@"
  else
    "$@"
  fi
}

postgres_start() {
  POSTGRES_BIN=$1
  POSTGRES_DIR=$(mktemp -d)
  POSTGRES_USER_NAME=postgres
  id postgres >/dev/null 2>&1 || POSTGRES_USER_NAME=nobody
  chmod 755 "$POSTGRES_DIR"
  [ "$(id -u)" = 0 ] && chown "$POSTGRES_USER_NAME" "$POSTGRES_DIR"
  local port
  port=$(free_port)
  (cd "$POSTGRES_DIR" && postgres_as "$POSTGRES_BIN/initdb" -D "$POSTGRES_DIR/data" -U postgres -A trust --no-sync >/dev/null)
  # Durability is not what tests measure; the crash tests kill tidehook and stop this server, not the machine.
  local settings=${POSTGRES_SETTINGS:--c fsync=off -c full_page_writes=off}
  (cd "$POSTGRES_DIR" && postgres_as "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DIR/data" -w -t 60 -l "$POSTGRES_DIR/log" \
    -o "-p $port -k $POSTGRES_DIR -c listen_addresses=127.0.0.1 -c max_connections=300 $settings" start >/dev/null)
  export TIDEHOOK_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres"
  trap postgres_stop EXIT
}

# A pooler that hands out a connection for one transaction at a time: fewer of them than who asks, so that nobody keeps one.
pooler_ready() {
  [ -z "${TIDEHOOK_TEST_POOLER:-}" ] || return 0
  local binary
  binary=$(command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null || true)
  if [ -z "$binary" ]; then
    echo "No PgBouncer found: installing it." >&2
    apt_install pgbouncer
    binary=$(command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null) ||
      { echo "There is no PgBouncer and none could be installed. Set TIDEHOOK_TEST_POOLER." >&2; return 1; }
  fi
  local server port
  # A URL of a server may say more than where it is: user, password, host and port are taken from it.
  server=$(python3 - "$TIDEHOOK_TEST_POSTGRES" <<'READ'
import sys, urllib.parse
url = urllib.parse.urlparse(sys.argv[1])
user, password = url.username or "postgres", urllib.parse.unquote(url.password or "none")
print(f"host={url.hostname} port={url.port or 5432} user={user} password={password}")
READ
  )
  port=$(free_port)
  POOLER_DIR=$(mktemp -d)
  chmod 755 "$POOLER_DIR"
  printf '[databases]\n* = %s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 2000\nserver_idle_timeout = 5\n' "$server" "$port" >"$POOLER_DIR/pgbouncer.ini"
  local as=""
  if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 && as="runuser -u postgres --" || as="runuser -u nobody --"
  fi
  $as "$binary" -q "$POOLER_DIR/pgbouncer.ini" >/dev/null 2>&1 &
  POOLER_PID=$!
  for _ in $(seq 50); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.1
  done
  export TIDEHOOK_TEST_POOLER="postgres://postgres@127.0.0.1:$port/postgres"
  trap postgres_stop EXIT
}

postgres_ready() {
  server_ready
  pooler_ready
}

server_ready() {
  if [ -n "${TIDEHOOK_TEST_POSTGRES:-}" ]; then
    return 0
  fi
  local standard="postgres://postgres@127.0.0.1:5432/postgres"
  if postgres_answers "$standard"; then
    export TIDEHOOK_TEST_POSTGRES=$standard
    return 0
  fi
  local bin
  if ! bin=$(postgres_bin); then
    echo "No Postgres found: installing it." >&2
    apt_install postgresql
    bin=$(postgres_bin) || { echo "There is no Postgres server and none could be installed. Set TIDEHOOK_TEST_POSTGRES." >&2; return 1; }
  fi
  postgres_start "$bin"
}
