#!/usr/bin/env bash
# An emulated AWS on this machine: prints the variables that lead to it, and stays until it is stopped.
#
#   localstack/up.sh            MiniStack on a free port of the loopback interface
#   AWS_ENDPOINT_URL=… up.sh    whatever is there already (LocalStack, for instance) is used as it is
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${AWS_ENDPOINT_URL:-}" ]; then
  echo "export AWS_ENDPOINT_URL=$AWS_ENDPOINT_URL"
  exit 0
fi
. scripts/lambda-tools.sh
lambda_tools
port=${PORT:-$(free_port)}
cat <<EOF
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
EOF
BIND_HOST=127.0.0.1 GATEWAY_PORT=$port exec "$MINISTACK" >&2
