"""Events through a function URL and through a REST API, to a stack that was deployed with secrets; and the metrics of its log.

entrances.py STACK RECEIVER TOKEN GITHUB_SECRET; AWS_ENDPOINT_URL names the emulator.
"""
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
from samtranslator.yaml_helper import yaml_parse

stack, receiver, token, secret = sys.argv[1:]
endpoint = os.environ["AWS_ENDPOINT_URL"]
clouds, logs = (boto3.client(name, endpoint_url=endpoint) for name in ("cloudformation", "logs"))
arrived, got = threading.Condition(), []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.end_headers()
        with arrived:
            got.append((self.headers.get("X-Overlay"), body))
            arrived.notify_all()

    def log_message(self, *_):
        pass


host, port = receiver.split(":")
threading.Thread(target=HTTPServer((host, int(port)), Receiver).serve_forever, daemon=True).start()


def outputs(name):
    (found,) = clouds.describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def post(url, body, headers):
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as why:
        return why.code, why.read().decode(errors="replace")


def expect(what, condition, said=""):
    if not condition:
        sys.exit(f"{what}: {said}")
    print(what)


def delivered(count):
    with arrived:
        return arrived.wait_for(lambda: len(got) >= count, timeout=60)


about = outputs(stack)
# The emulator serves a function URL under its id: https://ID.lambda-url.REGION.on.aws
url_id = about["BaseUrl"].split("//")[1].split(".")[0]
base = f"{endpoint}/_aws/lambda-url/{url_id}"
status, answer = post(f"{base}/events/app/x", b"{}", {"content-type": "application/json"})
expect("the token that is a secret is asked for", status == 401, answer)
status, answer = post(f"{base}/events/app/x", b'{"via": "url"}', {"content-type": "application/json", "authorization": f"Bearer {token}"})
expect("an event came in by the function URL, with the database's URL made of a JSON secret", status == 202, answer)
expect("and was delivered with a variable of the stack's own environment", delivered(1) and got[0][0] == "emulated", got)

# The firewall is AWS's alone; everything else of the stack is deployed.
with open("infra/rest-api.yaml") as file:
    template = yaml_parse(file.read())
template["Resources"] = {name: of for name, of in template["Resources"].items() if not of["Type"].startswith("AWS::WAFv2::")}
clouds.create_stack(
    StackName=f"{stack}-rest",
    TemplateBody=json.dumps(template),
    Parameters=[{"ParameterKey": "IngressArn", "ParameterValue": about["IngressArn"]}],
)
clouds.get_waiter("stack_create_complete").wait(StackName=f"{stack}-rest", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
api = outputs(f"{stack}-rest")["ApiId"]
# Bytes that are no text: a gateway that decoded them would break the signature.
body = b'{"zen": "\xc3\xa9\xe2\x82\xac"}\xff\xfe\x00' + bytes(range(128, 256))
signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
headers = {"x-github-event": "push", "x-hub-signature-256": signature, "x-github-delivery": "one", "content-type": "application/json"}
status, answer = post(f"{endpoint}/restapis/{api}/v1/_user_request_/webhooks/github", body, headers)
expect("a signed webhook of any bytes came in by a REST API with a stage", status == 200, f"{status} {answer}")
expect("and was delivered byte for byte", delivered(2) and got[1][1] == body, got[1:])

deadline = time.time() + 60
wanted = {"tidehook_events_received_total", "tidehook_deliveries_total"}
while wanted and time.time() < deadline:
    for group in logs.describe_log_groups()["logGroups"]:
        for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]:
            wanted = {name for name in wanted if name not in event["message"]}
    time.sleep(0.5)
expect("metrics are in the log at LogLevel=WARN", not wanted, f"missing are {wanted}")
