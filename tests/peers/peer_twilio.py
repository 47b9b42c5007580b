"""Twilio: forms and JSON signed by its libraries for Python and Node, each verified by the other."""

import urllib.parse

from twilio.request_validator import RequestValidator

from checks import Peer, Request
from corpus import documents, fields

TOKEN = "plainly-fictional-twilio"
SOURCES = {"twilio": {"verify": "twilio", "secret": TOKEN}}
FORM = "application/x-www-form-urlencoded"
QUERIES = ["", "?x=1", "?a=b&c=%20d", "?empty=&tide=high+water", "?q=%27quoted%27"]
#: Forms and JSON bodies of each library.
FORMS, BODIES = 80, 30


class Fields(dict):
    """Fields with repeated names, as the library for Python asks for them."""

    def getall(self, name):
        return self[name]


def by_name(pairs):
    """The values of each name."""
    values = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def run(tidehook, node):
    validator = RequestValidator(TOKEN)

    def form_by_node(url, values):
        return node.call("twilio.sign", TOKEN, url, {name: one[0] if len(one) == 1 else one for name, one in values.items()})

    library(tidehook, node, "twilio of PyPI", lambda url, values: validator.compute_signature(url, Fields(values)), validator.compute_hash)
    library(tidehook, node, "twilio of npm", form_by_node, lambda body: node.call("twilio.bodyHash", body))


def library(tidehook, node, name, sign, body_hash):
    peer, validator = Peer(name, tidehook), RequestValidator(TOKEN)
    token = name.replace(" ", "-")
    requests = []
    for number, pairs in enumerate(fields(FORMS, name)):
        kind = "event"
        if number % 4 == 1:
            pairs, kind = [*pairs, ("MessageStatus", "delivered")], "message.delivered"
        elif number % 4 == 2:
            pairs, kind = [*pairs, ("CallStatus", "ringing")], "call.ringing"
        body, query = urllib.parse.urlencode(pairs), QUERIES[number % len(QUERIES)]
        url, values = f"{tidehook.origin}/webhooks/twilio{query}", by_name(pairs)
        signature = sign(url, values)
        peer.same("Python's verifies", True, validator.validate(url, Fields(values), signature), (url, pairs))
        peer.same("Node's verifies", True, node.call("twilio.verifies", TOKEN, signature, url, values), (url, pairs))
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature, "I-Twilio-Idempotency-Token": f"{token}-{number}"}
        requests.append(Request("twilio", body.encode(), headers, kind, query, f"{name}, form {number}"))
    for number, (_, body) in enumerate(documents(BODIES, name, lambda n: {"id": n})):
        text = body.decode()
        query = f"?x={number}&bodySHA256={body_hash(text)}" if number % 2 else f"?bodySHA256={body_hash(text)}"
        url = f"{tidehook.origin}/webhooks/twilio{query}"
        signature = sign(url, {})
        peer.same("Python's verifies JSON", True, validator.validate(url, text, signature), url)
        peer.same("Node's verifies JSON", True, node.call("twilio.verifiesBody", TOKEN, signature, url, text), url)
        headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature, "I-Twilio-Idempotency-Token": f"{token}-json-{number}"}
        requests.append(Request("twilio", body, headers, "event", query, f"{name}, JSON {number}"))
    # The host that was called, with the standard port and without; the port of the URL is not always part of what is signed.
    for number, (host, signed) in enumerate((("tides.example.com", ""), ("tides.example.com", ":80"), ("tides.example.com:80", ""))):
        url, values = f"http://{host.split(':')[0]}{signed}/webhooks/twilio?h={number}", {"Body": [f"host {number}"]}
        signature = sign(url, values)
        called = f"http://{host}/webhooks/twilio?h={number}"
        peer.same("Python's verifies a host", True, validator.validate(called, Fields(values), signature), called)
        peer.same("Node's verifies a host", True, node.call("twilio.verifies", TOKEN, signature, called, values), called)
        headers = {"Host": host, "Content-Type": FORM, "X-Twilio-Signature": signature}
        body = urllib.parse.urlencode({"Body": f"host {number}"}).encode()
        requests.append(Request("twilio", body, headers, "event", f"?h={number}", f"{name}, host {host}, signed as {url}"))
    peer.repeat(peer.accept(requests)[: FORMS + BODIES : 10])
    other = [Request("twilio", one.body, one.headers, "", "?x=2", "another URL") for one in requests[:5]]
    for one in other:
        url, values = tidehook.origin + one.target, by_name(urllib.parse.parse_qsl(one.body.decode(), keep_blank_values=True))
        peer.same("Python's refuses another URL", False, validator.validate(url, Fields(values), one.headers["X-Twilio-Signature"]), url)
    peer.refuse(other)
    peer.end()
