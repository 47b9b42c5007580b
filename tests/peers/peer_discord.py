"""Discord: signed with PyNaCl; its own library for JavaScript gives a second opinion on each request."""

import json
import time

import nacl.signing

from checks import Peer, Request
from corpus import documents

KEY = nacl.signing.SigningKey(b"plainly-fictional-seed, discord!")
PUBLIC = KEY.verify_key.encode().hex()
SOURCES = {"discord": {"verify": "discord", "secret": PUBLIC}}
#: Interactions have a type of their own and answer to `interaction` too; this handler listens to the latter only.
HANDLERS = {"discord-interactions": {"source": "discord", "events": ["interaction"]}}
INTERACTIONS = {2: "application_command", 3: "message_component", 4: "application_command_autocomplete", 5: "modal_submit"}
EVENTS = ["APPLICATION_AUTHORIZED", "ENTITLEMENT_CREATE", "QUEST_USER_ENROLLMENT"]
#: Requests of each form.
COUNT = 50


def run(tidehook, node):
    peer = Peer("PyNaCl of PyPI with discord-interactions of npm", tidehook)
    now = int(time.time())
    requests = [*interactions(now), *events(now)]
    second_opinion(peer, node, requests, True)
    peer.repeat(peer.accept(requests)[:COUNT:10])
    pings(peer, node, now)
    refused = [signed(b'{"type":2,"id":"refused"}', now, "of another key", key=nacl.signing.SigningKey(b"plainly-fictional seed, another!"))]
    late = signed(b'{"type":2,"id":"refused"}', now, "another time than the signed one")
    late.headers["X-Signature-Timestamp"] = str(now + 1)
    second_opinion(peer, node, [*refused, late], False)
    peer.refuse([*refused, late])
    peer.end()


def signed(body, moment, label, kind="", handlers=(), key=KEY):
    signature = key.sign(str(moment).encode() + body).signature.hex()
    headers = {"Content-Type": "application/json", "X-Signature-Ed25519": signature, "X-Signature-Timestamp": str(moment)}
    return Request("discord", body, headers, kind, label=label, handlers=handlers)


def interactions(now):
    numbers = list(INTERACTIONS)
    for n, (document, body) in enumerate(documents(COUNT, "discord", lambda n: {"id": f"9{n:08d}", "type": numbers[n % len(numbers)]})):
        yield signed(body, now - n, f"interaction {n}", INTERACTIONS[document["type"]], ("discord", "discord-interactions"))


def events(now):
    """Webhook events: the type is that of the event inside."""

    def base(number):
        return {"version": 1, "application_id": "1234", "type": 1, "event": {"type": EVENTS[number % len(EVENTS)], "data": {}}}

    for n, (document, body) in enumerate(documents(COUNT, "discord events", base)):
        yield signed(body, now - n, f"event {n}", document["event"]["type"])


def second_opinion(peer, node, requests, expected):
    arguments = [[PUBLIC, r.headers["X-Signature-Ed25519"], r.headers["X-Signature-Timestamp"], r.body.decode()] for r in requests]
    for one, is_verified in zip(requests, node.map("discord.verifies", arguments)):
        peer.same("Discord's library verifies it", expected, is_verified, one.label)


def pings(peer, node, now):
    """Pings of interactions are answered with a pong, those of webhook events with nothing, changed ones with a refusal."""
    ping = signed(b'{"id":"91","type":1,"token":"plainly-fictional","version":1}', now, "ping of interactions")
    event_ping = signed(b'{"version":1,"application_id":"1234","type":0}', now, "ping of webhook events")
    second_opinion(peer, node, [ping, event_ping], True)
    for one, expected in ((ping, (200, {"type": 1})), (event_ping, (204, None))):
        status, _, body = peer.tidehook.ask(*one.post())
        peer.same(one.label, expected, (status, json.loads(body) if body else None), body)
        status, _, body = peer.tidehook.ask(*one.changed(0))
        peer.same(f"changed {one.label}", 401, status, body)
    peer.count("pings", 2)
