#!/usr/bin/env bash
# Licences, bans and sources of the dependencies, by deny.toml. Installs cargo-deny beside the build when it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools
deny=$tools/bin/cargo-deny
if command -v cargo-deny >/dev/null 2>&1; then
  deny=$(command -v cargo-deny)
elif [ ! -x "$deny" ]; then
  cargo install --quiet cargo-deny --locked --version "$version" --root "$tools"
fi
"$deny" --locked check licenses bans sources
