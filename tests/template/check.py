"""What template.yaml must say, of the template as SAM expands it, offline."""
import json
import os
import sys

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse


class Managed:
    def load(self):
        return {}


os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
with open(sys.argv[1]) as file:
    source = yaml_parse(file.read())
# Local folders stand for what a deployment has uploaded.
for resource in source["Resources"].values():
    for key in ("CodeUri", "ContentUri"):
        if key in resource.get("Properties", {}):
            resource["Properties"][key] = "s3://bucket/key"
parameters = {name: about.get("Default", "x") for name, about in source["Parameters"].items()}
expanded = transform(source, parameters, Managed())
resources = expanded["Resources"]
problems = []


def of(kind):
    return {name: resource.get("Properties", {}) for name, resource in resources.items() if resource["Type"] == kind}


def must(holds, what):
    if not holds:
        problems.append(what)


defaults = source["Parameters"]
must(
    defaults["QueueVisibilitySeconds"]["Default"] >= 6 * defaults["WorkerTimeoutSeconds"]["Default"],
    "the visibility timeout is at least six times the worker's timeout",
)
functions = of("AWS::Lambda::Function")
must({f["Handler"] for f in functions.values()} == {"ingress", "ticker", "worker"}, "the three handlers are the three roles")
must(all(f["Runtime"] == "provided.al2023" for f in functions.values()), "every function runs on provided.al2023")
worker = next(about for name, about in of("AWS::Lambda::Function").items() if name == "Worker")
must(worker.get("RecursiveLoop") == "Allow", "the worker sends hints to the queue that invokes it: RecursiveLoop: Allow")
builds = {json.dumps(source["Resources"][name]["Metadata"]) for name in ("Ingress", "Ticker", "Worker")}
must(len(builds) == 1, "one build serves all three functions")
(mapping,) = of("AWS::Lambda::EventSourceMapping").values()
must(mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], "the worker answers which messages are to come again")
must(mapping["BatchSize"] == 10 and "MaximumConcurrency" in mapping["ScalingConfig"], "batches of ten, with a cap on workers")
(schedule,) = of("AWS::Scheduler::Schedule").values()
must(schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 0, "a tick is not repeated by the schedule")
(invoke,) = of("AWS::Lambda::EventInvokeConfig").values()
must(invoke["MaximumRetryAttempts"] == 0, "a tick is not repeated by Lambda")
must("AWS::StackName" in json.dumps(schedule.get("Name", "")), "two stacks of one account have two schedules")
logs = of("AWS::Logs::LogGroup")
must(len(logs) == 4 and all("RetentionInDays" in group for group in logs.values()), "every log has a retention")
queues = of("AWS::SQS::Queue")
must(any("RedrivePolicy" in queue for queue in queues.values()), "hints that fail end in a dead-letter queue")
must(all(queue.get("SqsManagedSseEnabled") for queue in queues.values()), "queues are encrypted")
functions_with_role = [name for name, f in functions.items() if f["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}]
must(len(functions_with_role) == 3, "every function has a role of its own")
documents = {}
for name, role in of("AWS::IAM::Role").items():
    must("arn:aws:iam::aws" not in json.dumps(role), f"{name} has no policy that AWS may change")
    documents.update({f"{name}/{at}": policy["PolicyDocument"] for at, policy in enumerate(role.get("Policies", []))})
documents.update({name: policy["PolicyDocument"] for name, policy in of("AWS::IAM::ManagedPolicy").items()})
# These have no resources of their own: AWS's service authorization reference.
OF_ALL = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
for name, document in documents.items():
    for statement in document["Statement"]:
        statement = statement["Fn::If"][1] if "Fn::If" in statement else statement
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        of_all = all(action in OF_ALL or action.startswith("ec2:") for action in actions)
        must(statement["Resource"] != "*" or of_all, f"{name} names what it may do {actions} to")
        must(not any(a == "*" or a.endswith(":*") for a in actions), f"{name} has no wildcard of actions")


def resolved(value, given):
    """A value of the template as CloudFormation resolves it, as far as conditions, joins and references go."""
    if isinstance(value, str):
        return value
    (kind, argument), = value.items()
    if kind == "Ref":
        return given.get(argument, defaults.get(argument, {}).get("Default", ""))
    if kind == "Fn::Join":
        return argument[0].join(resolved(part, given) for part in argument[1])
    if kind == "Fn::If":
        return resolved(argument[1 if holds(argument[0], given) else 2], given)
    raise ValueError(f"{kind} is not resolved here")


def holds(name, given):
    condition = expanded["Conditions"][name]
    negated = "Fn::Not" in condition
    left, right = (condition["Fn::Not"][0] if negated else condition)["Fn::Equals"]
    return (resolved(left, given) == resolved(right, given)) != negated


variables = functions["Ingress"]["Environment"]["Variables"]
arn = "arn:aws:secretsmanager:eu-west-1:000000000000:secret:tidehook/database-AbCdEf"
for given, expected in [
    ({"DatabaseUrl": "postgres://h/x"}, "postgres://h/x"),
    ({"DatabaseUrlSecretArn": arn}, "${secretsmanager:" + arn + "}"),
    (
        {"DatabaseSecretArn": arn, "DatabaseHost": "db.example.com"},
        "postgres://" + ":".join(f"${{secretsmanager:{arn}#{key}}}" for key in ("username", "password"))
        + "@db.example.com:${secretsmanager:" + arn + "#port}/${secretsmanager:" + arn + "#dbname}?sslmode=verify-full",
    ),
]:
    found = resolved(variables["DATABASE_URL"], given)
    must(found == expected, f"with {list(given)} the functions get {expected}, and not {found}")
found = resolved(variables["TIDEHOOK_API_TOKEN"], {"ApiTokenSecretArn": arn})
must(found == "${secretsmanager:" + arn + "}", "the token may be a secret")
alarms = of("AWS::CloudWatch::Alarm")
silent = [a for a in alarms.values() if a["MetricName"] == "Invocations"]
must(silent and silent[0]["TreatMissingData"] == "breaching", "a ticker that is silent is noticed")
given_up = [a for a in alarms.values() if a["MetricName"] == "DeliveriesGivenUp"]
filters = [t["MetricName"] for f in of("AWS::Logs::MetricFilter").values() for t in f["MetricTransformations"]]
must(given_up and filters.count("DeliveriesGivenUp") == 2, "deliveries that are given up are noticed, from the logs of worker and ticker")
must(len(alarms) >= 5, "there are alarms for dead letters, old hints, silent and failing ticks, and failing requests")
if problems:
    sys.exit("template.yaml breaks what must hold:\n" + "\n".join(f"- {problem}" for problem in problems))
print(f"template.yaml: {len(resources)} resources, everything holds")
