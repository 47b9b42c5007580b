#!/usr/bin/env bash
# Builds the functions and deploys template.yaml to the emulator that AWS_ENDPOINT_URL names; prints the base URL.
# Takes parameters of the template: localstack/deploy.sh DatabaseUrl=postgres://… ConfigPath=/path/to/tidehook.yaml
set -euo pipefail
cd "$(dirname "$0")/.."
: "${AWS_ENDPOINT_URL:?start an emulator with localstack/up.sh and set what it prints}"
. scripts/lambda-tools.sh
lambda_tools
stack=${STACK:-tidehook}
# Functions run as processes of this machine.
architecture=$([ "$(uname -m)" = aarch64 ] && echo arm64 || echo x86_64)
if [ -z "${SKIP_BUILD:-}" ]; then
  set -a
  . infra/lambda.env
  set +a
  sam build --parameter-overrides "Architecture=$architecture" >&2
fi
"$SAM_PYTHON" - <<'PYTHON'
import boto3, os
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
if not any(bucket["Name"] == "artifacts" for bucket in s3.list_buckets()["Buckets"]):
    s3.create_bucket(Bucket="artifacts")
PYTHON
# CloudFormation makes numbers of parameters where a property is one. The emulator leaves the queue's mapping with texts, and its poller fails.
emulated=.aws-sam/build/emulated.json
"$SAM_PYTHON" - .aws-sam/build/template.yaml "$emulated" "$@" <<'PYTHON'
import json, sys
from samtranslator.yaml_helper import yaml_parse
template = yaml_parse(open(sys.argv[1]).read())
given = dict(pair.split("=", 1) for pair in sys.argv[3:])
number = lambda name: int(given.get(name, template["Parameters"][name]["Default"]))
hints = template["Resources"]["WorkerHints"]["Properties"]
hints["ScalingConfig"]["MaximumConcurrency"] = number("WorkersAtOnce")
hints["MaximumBatchingWindowInSeconds"] = number("BatchingWindowSeconds")
json.dump(template, open(sys.argv[2], "w"))
PYTHON
sam deploy --template-file "$emulated" --stack-name "$stack" --s3-bucket artifacts --capabilities CAPABILITY_IAM --no-confirm-changeset \
  --no-fail-on-empty-changeset --parameter-overrides "Architecture=$architecture" "EmulatorUrl=$AWS_ENDPOINT_URL" "$@" >&2
"$SAM_PYTHON" - "$stack" <<'PYTHON'
import boto3, os, sys
stack = boto3.client("cloudformation", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).describe_stacks(StackName=sys.argv[1])["Stacks"][0]
outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
# Without an HTTP API the entrance is another one, which the output BaseUrl names.
api = outputs.get("ApiId")
print(f"{os.environ['AWS_ENDPOINT_URL']}/_aws/execute-api/{api}/$default" if api else outputs["BaseUrl"])
for name in ["IngressName", "TickerName", "WorkerName", "QueueUrl", "DeadLetterQueueUrl"]:
    print(f"{name}={outputs[name]}", file=sys.stderr)
PYTHON
