"""Stripe: signed by its libraries for Python and Node, each verified by the other."""

import time

import stripe

from checks import Peer, Request
from corpus import documents

SECRET, OLD = "plainly-fictional-stripe", "plainly-fictional-stripe-of-last-year"
SOURCES = {"stripe": {"verify": "stripe", "secret": SECRET, "secrets": [OLD]}}
KINDS = ["invoice.paid", "customer.subscription.updated", "charge.dispute.funds_withdrawn", "v1.billing.meter.no_meter_found"]
#: Requests of each library.
COUNT = 100


def run(tidehook, node):
    def by_python(body, secret, moment):
        return f"t={moment},v1={stripe.WebhookSignature._compute_signature(f'{moment}.{body}', secret)}"

    def by_node(body, secret, moment):
        return node.call("stripe.sign", secret, moment, body)

    library(tidehook, node, "stripe of PyPI", by_python)
    library(tidehook, node, "stripe of npm", by_node)


def several(header, number):
    """The header with one signature, or with more: those of another secret, and of a scheme that proves nothing."""
    time_item, signature = header.split(",", 1)
    other = "v1=" + "ab" * 32
    return [header, f"{time_item},{other},{signature}", f"{time_item},{signature},{other}", f"{header},v0={'cd' * 32}"][number % 4]


def verifies(header, body, secret):
    """Whether the library for Python takes it."""
    try:
        stripe.Webhook.construct_event(body, header, secret)
        return True
    except stripe.SignatureVerificationError:
        return False


def library(tidehook, node, name, sign):
    peer = Peer(name, tidehook)
    now = int(time.time())

    def base(number):
        return {"id": f"evt_{name.replace(' ', '_')}_{number}", "object": "event", "type": KINDS[number % len(KINDS)]}

    made = documents(COUNT, name, base)
    requests = []
    for number, (document, body) in enumerate(made):
        secret = OLD if number % 5 == 4 else SECRET
        header = several(sign(body.decode(), secret, now - number), number)
        peer.same("Python's verifies", True, verifies(header, body.decode(), secret), header)
        peer.same("Node's verifies", True, node.call("stripe.verifies", secret, header, body.decode()), header)
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": header}
        requests.append(Request("stripe", body, headers, document["type"], label=f"{name} {number}"))
    peer.repeat(peer.accept(requests)[::10])
    refused = []
    body = made[3][1].replace(b"evt_", b"evt_refused_")
    right = sign(body.decode(), SECRET, now)
    for label, header in {
        "old": sign(body.decode(), SECRET, now - 330),
        "of another secret": sign(body.decode(), "plainly-fictional-other", now),
        "the right signature as v0": right.replace("v1=", "v0="),
        "without a time": right.split(",", 1)[1],
    }.items():
        peer.same("Python's refuses", False, verifies(header, body.decode(), SECRET), (label, header))
        peer.same("Node's refuses", False, node.call("stripe.verifies", SECRET, header, body.decode()), (label, header))
        refused.append(Request("stripe", body, {"Stripe-Signature": header}, "", label=label))
    peer.refuse(refused)
    peer.end()
