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
must(mapping["BatchSize"] == 10 and mapping["ScalingConfig"]["MaximumConcurrency"] >= 2, "batches of ten, with a cap on workers")
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
for name, role in of("AWS::IAM::Role").items():
    managed = [str(arn).rsplit("/", 1)[-1] for arn in role.get("ManagedPolicyArns", []) if isinstance(arn, str)]
    must(not any("SQS" in arn for arn in managed), f"{name} may take messages of no other queue")
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            if "Fn::If" in statement:
                statement = statement["Fn::If"][1]
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            must(statement["Resource"] != "*" or actions[0].startswith("xray:"), f"{name} names what it may do it to")
            must(not any(a == "*" or a.endswith(":*") for a in actions), f"{name} has no wildcard of actions")
alarms = of("AWS::CloudWatch::Alarm")
silent = [a for a in alarms.values() if a["MetricName"] == "Invocations"]
must(silent and silent[0]["TreatMissingData"] == "breaching", "a ticker that is silent is noticed")
given_up = [a for a in alarms.values() if a["MetricName"] == "DeliveriesGivenUp"]
filters = [t["MetricName"] for f in of("AWS::Logs::MetricFilter").values() for t in f["MetricTransformations"]]
must(given_up and filters == ["DeliveriesGivenUp"] * 2, "deliveries that are given up are noticed, from the logs of worker and ticker")
must(len(alarms) >= 5, "there are alarms for dead letters, old hints, silent and failing ticks, and failing requests")
if problems:
    sys.exit("template.yaml breaks what must hold:\n" + "\n".join(f"- {problem}" for problem in problems))
print(f"template.yaml: {len(resources)} resources, everything holds")
