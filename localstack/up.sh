#!/usr/bin/env bash
# An emulated AWS on this machine: prints the variables that lead to it, and stays until it is stopped.
#
#   localstack/up.sh            MiniStack on a free port of the loopback interface
#   AWS_ENDPOINT_URL=… up.sh    whatever is there already (LocalStack, for instance) is used as it is
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${AWS_ENDPOINT_URL:-}" ]; then
  # One that has been stopped since is still in the variables of a shell.
  if python3 -c 'import sys, urllib.parse, socket; at = urllib.parse.urlparse(sys.argv[1]); socket.create_connection((at.hostname, at.port or 80), 2)' "$AWS_ENDPOINT_URL" 2>/dev/null; then
    echo "export AWS_ENDPOINT_URL=$AWS_ENDPOINT_URL"
    exit 0
  fi
  echo "Nothing answers at AWS_ENDPOINT_URL=$AWS_ENDPOINT_URL; starting an emulator." >&2
fi
. scripts/lambda-tools.sh
lambda_tools
port=${PORT:-$(free_port)}
cat <<EOF
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
EOF
BIND_HOST=127.0.0.1 GATEWAY_PORT=$port exec "$MINISTACK" >&2
