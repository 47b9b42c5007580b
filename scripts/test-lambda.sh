#!/usr/bin/env bash
# The functions, from a clean machine: installs the tools, checks and builds template.yaml, deploys it to an emulated AWS, and runs
# the parity suite and the limits of SQS against what was deployed. Needs a Rust toolchain and Python; the databases come from
# scripts/postgres.sh and scripts/mariadb.sh.
#
#   scripts/test-lambda.sh             all of it
#   SKIP_BUILD=1 …                     with what was built last
#   scripts/test-lambda.sh --measure   and measures cold starts, warm overhead and the precision of retries (docs/benchmarks.md)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lambda-tools.sh
. scripts/postgres.sh
. scripts/mariadb.sh
lambda_tools
work=$(mktemp -d)
clean_up() {
  [ -z "${emulator:-}" ] || kill "$emulator" 2>/dev/null || true
  [ -z "${moto:-}" ] || kill "$moto" 2>/dev/null || true
  [ -z "${extension:-}" ] || kill "$extension" 2>/dev/null || true
  [ -z "${database:-}" ] || psql -q -w "$TIDEHOOK_TEST_POSTGRES" -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" 2>/dev/null || true
  postgres_stop
  mariadb_stop
  rm -rf "$work"
}
postgres_ready
mariadb_ready
trap clean_up EXIT
say() { printf '\n== %s\n' "$*" >&2; }

say "The template"
sam validate --lint -t template.yaml --region us-east-1 >&2
cfn-lint -r us-east-1 -t template.yaml infra/*.yaml
"$SAM_PYTHON" tests/template/check.py template.yaml

say "The build"
architecture=$([ "$(uname -m)" = aarch64 ] && echo arm64 || echo x86_64)
[ -n "${SKIP_BUILD:-}" ] || (set -a; . infra/lambda.env; set +a; sam build --parameter-overrides "Architecture=$architecture" >&2)
for function in Ingress Ticker Worker; do
  test -x ".aws-sam/build/$function/bootstrap" || { echo "sam build made no bootstrap for $function" >&2; exit 1; }
done
bytes=$(stat -c %s .aws-sam/build/Ingress/bootstrap)
echo "The binary has $((bytes / 1000)) kB." >&2

say "The stack"
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
port=$(free_port)
export AWS_ENDPOINT_URL="http://127.0.0.1:$port"
# Where the functions look for the extension that reads secrets.
PARAMETERS_SECRETS_EXTENSION_HTTP_PORT=$(free_port)
export PARAMETERS_SECRETS_EXTENSION_HTTP_PORT
TMPDIR="$work" BIND_HOST=127.0.0.1 GATEWAY_PORT=$port "$MINISTACK" >"$work/ministack.log" 2>&1 &
emulator=$!
until python3 -c "import urllib.request; urllib.request.urlopen('$AWS_ENDPOINT_URL/_ministack/health')" 2>/dev/null; do
  kill -0 "$emulator" 2>/dev/null || { cat "$work/ministack.log" >&2; exit 1; }
  sleep 0.2
done
database="stack_$$_$(date +%s)"
url=$(python3 - "$TIDEHOOK_TEST_POSTGRES" "$database" <<'PYTHON'
import sys, urllib.parse
print(urllib.parse.urlunparse(urllib.parse.urlparse(sys.argv[1])._replace(path="/" + sys.argv[2])))
PYTHON
)
"$(command -v psql)" -q -w "$TIDEHOOK_TEST_POSTGRES" -c "CREATE DATABASE $database"
receiver="127.0.0.1:$(free_port)"
TIDEHOOK_TEST_RECEIVER="$receiver" TIDEHOOK_TEST_WRITE="$work/tidehook.yaml" cargo test --locked -q --test it -- parity::the_configuration >&2
gateway=$(SKIP_BUILD=1 localstack/deploy.sh "DatabaseUrl=$url" "ApiToken=plainly-fictional" "IngressReservedConcurrency=10" "ConfigPath=$work/tidehook.yaml" 2>"$work/deploy.log") ||
  { tail -n 40 "$work/deploy.log" >&2; exit 1; }
name() { sed -n "s/^$1=//p" "$work/deploy.log"; }
ticker=$(name TickerName)
say "Migrating, as a deployment does"
cargo run --locked -q -- migrate --lambda tidehook

say "The doctor"
cargo run --locked -q -- doctor --lambda tidehook

say "Parity: SQLite, Postgres, the runtime API, the deployed stack"
TIDEHOOK_TEST_ALL=1 TIDEHOOK_TEST_GATEWAY="$gateway" TIDEHOOK_TEST_RECEIVER="$receiver" TIDEHOOK_TEST_STACK="$url" \
  TIDEHOOK_TEST_TICKER="$AWS_ENDPOINT_URL/2015-03-31/functions/$ticker/invocations" cargo test --locked -q --test it -- parity:: ||
  { tail -n 60 "$work/ministack.log" >&2; exit 1; }

say "The end-to-end tests, on Postgres and as functions"
for world in postgres functions; do
  TIDEHOOK_TEST_ALL=1 TIDEHOOK_TEST_WORLD=$world cargo test --locked -q --test it -- api:: delivery:: people::
done

say "The schedule"
# What nobody was told of can only be found by a tick: the event of this row is made without a hint.
"$SAM_PYTHON" tests/template/schedule.py "$url" "$receiver" || { tail -n 60 "$work/ministack.log" >&2; exit 1; }

say "The other ways in: secrets, an environment of its own, LogLevel=WARN, a function URL, a REST API"
"$SAM_PYTHON" tests/template/extension.py "$PARAMETERS_SECRETS_EXTENSION_HTTP_PORT" >"$work/extension.log" 2>&1 &
extension=$!
mkdir "$work/other"
other_receiver="127.0.0.1:$(free_port)"
cat >"$work/other/tidehook.yaml" <<YAML
database: { driver: postgres }
server: { allow_private_urls: true }
api: { auth_token: "\${TIDEHOOK_API_TOKEN}" }
sources:
  app: { type: event }
  github: { type: webhook, verify: github, secret: "\${ssm:/tidehook/github}" }
handlers:
  all: { source: app, url: "\${RECEIVER}", headers: { X-Overlay: none } }
  pushes: { source: github, url: "\${RECEIVER}" }
YAML
printf 'handlers: { all: { headers: { X-Overlay: emulated } } }\n' >"$work/other/tidehook.emulated.yaml"
printf 'RECEIVER=http://%s/\n' "$other_receiver" >"$work/other/.env.emulated"
read -r layer database_secret token_secret host < <("$SAM_PYTHON" - "$url" <<'PYTHON'
import boto3, io, json, os, sys, urllib.parse, zipfile
client = lambda name: boto3.client(name, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
url = urllib.parse.urlparse(sys.argv[1])
about = {"username": url.username, "password": url.password or "none", "port": url.port or 5432, "dbname": url.path[1:]}
secrets, packed = client("secretsmanager"), io.BytesIO()
database = secrets.create_secret(Name="tidehook/database", SecretString=json.dumps(about))["ARN"]
token = secrets.create_secret(Name="tidehook/token", SecretString="plainly-fictional-token")["ARN"]
client("ssm").put_parameter(Name="/tidehook/github", Value="plainly-fictional", Type="SecureString")
with zipfile.ZipFile(packed, "w") as archive:
    archive.writestr("extensions/stand-in", "")
layer = client("lambda").publish_layer_version(LayerName="extension", Content={"ZipFile": packed.getvalue()})["LayerVersionArn"]
print(layer, database, token, url.hostname)
PYTHON
)
STACK=other SKIP_BUILD=1 localstack/deploy.sh "DatabaseSecretArn=$database_secret" "DatabaseHost=$host" "DatabaseOptions=sslmode=prefer" \
  "ApiTokenSecretArn=$token_secret" "SecretsExtensionLayerArn=$layer" "EnvironmentName=emulated" "LogLevel=WARN" "Entrance=function-url" \
  "WorkersAtOnce=2" "MemoryMegabytes=512" "ConfigPath=$work/other/tidehook.yaml" >/dev/null 2>"$work/deploy.log" || { tail -n 40 "$work/deploy.log" >&2; exit 1; }
"$SAM_PYTHON" tests/template/entrances.py other "$other_receiver" plainly-fictional-token plainly-fictional ||
  { tail -n 60 "$work/ministack.log" >&2; exit 1; }

say "The container, from the same binary"
"$SAM_PYTHON" tests/template/container.py .aws-sam/build/Ingress/bootstrap "$work" "$url"

say "The limits of SQS, by a second witness"
moto_port=$(free_port)
"$MOTO" -H 127.0.0.1 -p "$moto_port" >"$work/moto.log" 2>&1 &
moto=$!
AWS_ENDPOINT_URL_SQS="http://127.0.0.1:$moto_port" TIDEHOOK_TEST_SQS=1 cargo test --locked -q --test it -- lambda::limits

if [ "${1:-}" = --measure ]; then
  say "Measuring"
  "$SAM_PYTHON" tests/template/measure.py ".aws-sam/build/Ingress/bootstrap" "$url" "$work/tidehook.yaml" "$gateway" "$receiver"
fi
say "A configuration that is wrong fails the deployment's last step, with its problems"
printf 'sources: { app: { typ: event } }\n' >"$work/broken.yaml"
SKIP_BUILD=1 localstack/deploy.sh "DatabaseUrl=$url" "ApiToken=plainly-fictional" "ConfigPath=$work/broken.yaml" >/dev/null 2>"$work/deploy.log" ||
  { tail -n 40 "$work/deploy.log" >&2; exit 1; }
if told=$(cargo run --locked -q -- migrate --lambda tidehook 2>&1); then
  echo "it passed: $told" >&2
  exit 1
fi
grep -q 'did you mean `type`?' <<<"$told" || { echo "$told" >&2; exit 1; }

say "All of it is as it should be."
