#!/usr/bin/env bash
# Real payloads, signers and verifiers from outside: providers' own libraries sign requests that tidehook must accept, and
# libraries of Standard Webhooks verify what tidehook sends. Installs them under target/peers. Ends with 1 on any mismatch.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
peers=$target/peers
mkdir -p "$peers"

need() {
  local program=$1
  shift
  command -v "$program" >/dev/null 2>&1 && return 0
  echo "No $program found: installing it." >&2
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  command -v "$program" >/dev/null 2>&1 || { echo "$program cannot be installed; the peers cannot run." >&2; return 1; }
}
need python3 python3 python3-venv
need npm nodejs npm

# Debian's Python may come without venv although python3 is there.
[ -x "$peers/venv/bin/python" ] || python3 -m venv "$peers/venv" || {
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  python3 -m venv "$peers/venv"
}
stamp=$peers/installed
wanted() { cat tests/peers/requirements.txt tests/peers/package.json; }
if ! wanted | cmp -s - "$stamp"; then
  rm -f "$stamp"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/peers/requirements.txt
  cp tests/peers/package.json "$peers/package.json"
  npm install --silent --no-audit --no-fund --no-package-lock --prefix "$peers" >/dev/null
  wanted >"$stamp"
fi
cargo build --locked --quiet
PEERS=$peers "$peers/venv/bin/python" tests/peers/peers.py "$target/debug/tidehook"
PEERS=$peers "$peers/venv/bin/python" tests/peers/consumers.py "$target/debug/tidehook"
