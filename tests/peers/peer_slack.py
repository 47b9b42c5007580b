"""Slack: signed by its SDK for Python; the receiver of Bolt for JavaScript gives a second opinion on each request."""

import json
import time
import urllib.parse

from slack_sdk.signature import SignatureVerifier

from checks import Peer, Request
from corpus import WORDS, documents, fields

SECRET = "plainly-fictional-slack"
SOURCES = {"slack": {"verify": "slack", "secret": SECRET}}
FORM = "application/x-www-form-urlencoded"
EVENTS = ["message", "app_mention", "reaction_added", "team_join"]
INTERACTIONS = ["block_actions", "view_submission", "shortcut", "message_action", "view_closed"]
COMMANDS = ["/tide", "/harbour-master", "/潮"]
#: Requests of each form.
COUNT = 60


def run(tidehook, node):
    peer = Peer("slack_sdk of PyPI with Bolt of npm", tidehook)
    now = int(time.time())
    requests = [*events(now), *commands(now), *interactions(now)]
    peer.repeat(peer.accept(second_opinion(peer, node, requests))[:COUNT:10])
    challenge(peer, node, now)
    refused(peer, node, now)
    peer.end()


def signed(body, content_type, moment, kind, label, secret=SECRET):
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(moment), body=body)
    headers = {"Content-Type": content_type, "X-Slack-Signature": signature, "X-Slack-Request-Timestamp": str(moment)}
    return Request("slack", body.encode(), headers, kind, label=label)


def events(now):
    """Events as JSON."""

    def base(number):
        event = {"type": EVENTS[number % len(EVENTS)], "text": WORDS[number % len(WORDS)]}
        return {"type": "event_callback", "event_id": f"Ev{number:08d}", "event": event}

    for number, (document, body) in enumerate(documents(COUNT, "slack", base)):
        yield signed(body.decode(), "application/json", now - number, document["event"]["type"], f"event {number}")


def commands(now):
    """Slash commands: forms with the command in a field."""
    for number, pairs in enumerate(fields(COUNT, "slack commands")):
        command = ("command", COMMANDS[number % len(COMMANDS)])
        body = urllib.parse.urlencode([("token", "plainly-fictional"), command, ("text", WORDS[number % len(WORDS)]), *pairs])
        yield signed(body, FORM, now - number, "slash_command", f"command {number}")


def interactions(now):
    """Interactions: forms whose one field, `payload`, is JSON."""
    for number, (document, body) in enumerate(documents(COUNT, "slack interactions", lambda n: {"type": INTERACTIONS[n % len(INTERACTIONS)]})):
        form = urllib.parse.urlencode({"payload": body.decode()})
        yield signed(form, FORM, now - number, document["type"], f"interaction {number}")


def bolt_verifies(node, requests):
    headers = [{name.lower(): value for name, value in one.headers.items()} for one in requests]
    return node.map("slack.verifies", [[SECRET, own, one.body.decode()] for own, one in zip(headers, requests)])


def bolt_kind(body):
    """The type that follows from what Bolt makes of a body."""
    if body.get("type") == "event_callback":
        return body["event"]["type"]
    return "slash_command" if "command" in body else body["type"]


def second_opinion(peer, node, requests):
    """Bolt verifies each, and sees the same type in it."""
    parsed = node.map("slack.parse", [[one.headers["Content-Type"], one.body.decode()] for one in requests])
    for one, is_verified, body in zip(requests, bolt_verifies(node, requests), parsed):
        peer.same("Bolt verifies it", True, is_verified, one.label)
        peer.same("the SDK verifies it", True, SignatureVerifier(SECRET).is_valid_request(one.body, one.headers), one.label)
        peer.same("Bolt's type", one.kind, bolt_kind(body), one.label)
    return requests


def challenge(peer, node, now):
    """The handshake is answered with its challenge, and only if it is genuine."""
    text = "plainly-fictional challenge 🌊"
    body = json.dumps({"token": "plainly-fictional", "challenge": text, "type": "url_verification"}, ensure_ascii=False)
    one = signed(body, "application/json", now, "", "url_verification")
    peer.same("Bolt verifies a challenge", [True], bolt_verifies(node, [one]))
    for request, expected in ((one.post(), 200), (one.changed(0), 401)):
        status, content_type, answer = peer.tidehook.ask(*request)
        peer.same("status of a challenge", expected, status, answer)
        if expected == 200:
            given = json.loads(answer)["challenge"] if content_type.startswith("application/json") else answer.decode()
            peer.same("the challenge", text, given, content_type)
    peer.count("challenges")


def refused(peer, node, now):
    requests = [signed('{"type":"refused"}', "application/json", moment, "", "old") for moment in (now - 330, 1)]
    requests.append(signed('{"type":"refused"}', "application/json", now, "", "of another secret", "plainly-fictional-other"))
    other = signed('{"type":"refused"}', "application/json", now, "", "another version of signatures")
    other.headers["X-Slack-Signature"] = other.headers["X-Slack-Signature"].replace("v0=", "v1=")
    requests.append(other)
    for one, is_verified in zip(requests, bolt_verifies(node, requests)):
        peer.same("Bolt refuses it", False, is_verified, one.label)
        peer.same("the SDK refuses it", False, SignatureVerifier(SECRET).is_valid_request(one.body, one.headers), one.label)
    peer.refuse(requests)
