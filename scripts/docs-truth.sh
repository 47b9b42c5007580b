#!/usr/bin/env bash
# Whether the documentation is true: runs every command block of README.md and docs/ that is marked as runnable, and compares the tables
# of defaults, codes, metrics, routes and flags with the program's own lists (tests/it/docs.rs, tests/it/config/).
#
# A block is marked by the comment <!-- run --> in the line before it. Its lines after `$ ` are run one after the other, in a fresh directory
# per page that has the repository's examples, with `tidehook` in the PATH; the first that fails ends it. <!-- run: NAME=VALUE … --> sets variables.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
cargo build --locked -q
bin=$(cargo metadata --format-version 1 --no-deps --locked | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blocks=0
for page in README.md docs/*.md; do
  dir="$work/$(basename "$page" .md)"
  mkdir "$dir"
  ln -s "$root/examples" "$dir/examples"
  python3 - "$page" >"$dir/blocks" <<'PYTHON'
import re, shlex, sys
text = open(sys.argv[1]).read()
for about, block in re.findall(r"<!-- run(?:: ([^>]*?))? -->\n+```[a-z]*\n(.*?)```", text, re.S):
    for pair in about.split():
        name, value = pair.split("=", 1)
        print(f"export {name}={shlex.quote(value)}")
    for line in block.splitlines():
        if line.startswith("$ "):
            command = line[2:]
            print(f"echo {shlex.quote('$ ' + command)}")
            print(command)
    print("echo __block__")
PYTHON
  [ -s "$dir/blocks" ] || continue
  if ! (cd "$dir" && env -u DATABASE_URL PATH="$bin:$PATH" bash -euo pipefail blocks >out 2>&1 </dev/null); then
    echo "$page: a command that is marked as runnable fails:" >&2
    sed '/^__block__$/d' "$dir/out" >&2
    exit 1
  fi
  blocks=$((blocks + $(grep -c '^__block__$' "$dir/out")))
done
echo "$blocks command blocks of the documentation run." >&2
# shellcheck source=scripts/postgres.sh
. scripts/postgres.sh
postgres_ready
trap 'postgres_stop; rm -rf "$work"' EXIT
TIDEHOOK_TEST_ALL=1 cargo test --locked -q --test it -- docs:: config::every_code_is_explained config::every_function_and_provider_is_documented \
  config::the_reference_is_the_list_of_keys config::the_editor_schema_agrees_with_the_reader config::every_example_loads_without_a_warning
