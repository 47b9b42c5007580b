"""Where the engine and an outsider's library once disagreed, and the library was right. Each case asks for what the library does."""

import json
import urllib.parse

import svix.webhooks
from twilio.request_validator import HMAC_SHA256, RequestValidator

import peer_cloudevents as clouds
import peer_standard
import peer_twilio
from checks import Peer, Request, Taken
from harness import API_TOKEN

FORM = "application/x-www-form-urlencoded"


def run(tidehook, node):
    for case in SETTLED:
        peer = Peer(f"settled, {case.__name__}", tidehook)
        case(peer, node)
        peer.end()


def batch_signed_once(peer, node):
    """A batch of CloudEvents in one message of Standard Webhooks: its members are events of their own, although the message,
    and so its id, is one."""
    members = [clouds.by_python("structured", number, "signed-batch") for number in range(1, 16)]
    body = f"[{','.join(one.body.decode() for one in members)}]"
    headers = {"Content-Type": clouds.BATCH, **clouds.svix_headers("msg_signed_batch", body)}
    status, _, answer = peer.tidehook.ask("POST", "/webhooks/standard", body[:-1].encode() + b" ]", headers)
    peer.same("a changed batch", 401, status, answer)
    clouds.post_batch(peer, "standard", headers, body, members)


def svix_in_and_out(peer, node):
    """What came in with Svix's headers is delivered with `svix-id` beside our own `webhook-id`. Svix's libraries read the former
    first, and so refuse our signature."""
    came = [one for one in Peer.taken if "svix-id" in one.request.headers]
    arrivals = [arrival for one in came for arrival in one.arrivals if arrival.body.startswith(b"{")]
    in_node = node.map("svix.verifies", [[peer_standard.OUTBOUND, arrival.headers, arrival.body.decode()] for arrival in arrivals])
    for arrival, is_verified in zip(arrivals, in_node):
        shown = {name: value for name, value in arrival.headers.items() if name.startswith(("svix-", "webhook-"))}
        peer.same("svix of npm verifies", True, is_verified, shown)
        try:
            svix.webhooks.Webhook(peer_standard.OUTBOUND).verify(arrival.body, arrival.headers)
            is_verified = True
        except svix.webhooks.WebhookVerificationError:
            is_verified = False
        peer.same("svix of PyPI verifies", True, is_verified, shown)
    peer.count("deliveries", len(arrivals))


def encoded(number, **change):
    """Attributes with characters that no header may hold; the SDK for Python percent-encodes them in binary mode."""
    own = {"type": "tide.turned", "source": "/pier", "id": f"encoded-{number}", "specversion": "1.0"}
    return {**own, "datacontenttype": "application/json", **change}


def type_in_percent_encoding(peer, node):
    """In binary mode a type is percent-encoded where it must be (HTTP binding, 3.1.3.2): what it stands for is the type."""
    for number, kind in enumerate(("com.example.high water", "com.example.gezeiten.höchststand", "com.example.100%")):
        own = encoded(f"type-{number}", type=kind)
        made = [clouds.write({**own, "id": f"{own['id']}-{mode}"}, {"n": 1}, mode, f"{mode}: {kind}") for mode in ("structured", "binary")]
        for one in peer.accept([clouds.request(one) for one in made]):
            _, _, event = peer.tidehook.ask("GET", f"/api/events/{one.event}", headers={"Authorization": f"Bearer {API_TOKEN}"})
            peer.same("stored type", kind, json.loads(event)["event_type"], one.request.label)
            one.is_typed = False


def identity_in_percent_encoding(peer, node):
    """The same of source and id: one event in both modes is one event."""
    for number, change in enumerate(({"id": "high water 1"}, {"source": "/häfen/1"}, {"id": "100%", "source": "/a b"})):
        own = encoded(f"identity-{number}", **change)
        first, again = (clouds.write(own, {"n": 1}, mode, f"{mode}: {change}") for mode in ("structured", "binary"))
        taken = peer.accept([clouds.request(first)])
        status, _, answer = peer.tidehook.ask(*clouds.request(again).post())
        if peer.same("status in the other mode", 200, status, answer):
            repeat(peer, taken, again, answer)


def repeat(peer, taken, again, answer):
    """Compares an answer that must name the first event; an event that should not be there is put on the books."""
    answer = json.loads(answer)
    first = taken[0].event if taken else None
    peer.same("a repeat in the other mode", (True, first), (answer["duplicate"], answer["event_id"]), (again.label, again.headers))
    if not answer["duplicate"]:
        peer.tidehook.receiver.wait([("clouds", answer["event_id"])])
        Peer.taken.append(Taken(clouds.request(again), answer["event_id"]))


def event_without_data(peer, node):
    """An event in binary mode without data and without a content type is delivered without a content type."""
    made = [one for one in (clouds.by_python("binary", number, "no-data") for number in range(20)) if "content-type" not in one.headers]
    for one, original in zip(peer.accept([clouds.request(one) for one in made]), made):
        for arrival in one.arrivals:
            peer.same(
                "the delivery is the same event",
                clouds.read_by_python(original.headers, original.body),
                clouds.read_by_python(arrival.headers, arrival.body),
                arrival.headers.get("content-type"),
            )


def empty_batch(peer, node):
    """A batch without events is one (JSON format, 4.2: "also valid in a request"); the SDK for JavaScript reads it."""
    peer.same("the SDK reads it", "[]", node.call("cloudevents.read", {"content-type": clouds.BATCH}, "[]"))
    status, _, answer = peer.tidehook.ask("POST", "/webhooks/clouds", b"[]", {"Content-Type": clouds.BATCH})
    peer.same("status", 200, status, answer)
    peer.count("requests")


def twilio_by_sha256(peer, node):
    """Webhooks signed with a key of their own: HMAC-SHA256, which `X-Twilio-Webhooks-Signature-Settings` names."""
    requests = []
    for number in range(3):
        pairs = {"Body": f"high water {number}"}
        url = f"{peer.tidehook.origin}/webhooks/twilio?sha256={number}"
        signature = RequestValidator(peer_twilio.TOKEN).compute_signature(url, pairs, HMAC_SHA256)
        peer.same("Node's verifies", True, node.call("twilio.verifies", peer_twilio.TOKEN, signature, url, pairs, HMAC_SHA256), url)
        settings = "key=plainly-fictional-key,algorithm=HMAC_SHA256"
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature, "X-Twilio-Webhooks-Signature-Settings": settings}
        requests.append(Request("twilio", urllib.parse.urlencode(pairs).encode(), headers, "event", f"?sha256={number}", url))
    peer.accept(requests)


def twilio_without_port(peer, node):
    """A URL with a port of its own that was signed without it. Both libraries try the URL without its port, whatever port it is."""
    requests = []
    for number in range(3):
        pairs, query = {"Body": f"high water {number}"}, f"?port={number}"
        called, signed = f"{peer.tidehook.origin}/webhooks/twilio{query}", f"http://127.0.0.1/webhooks/twilio{query}"
        validator = RequestValidator(peer_twilio.TOKEN)
        signature = validator.compute_signature(signed, pairs)
        peer.same("Python's verifies", True, validator.validate(called, pairs, signature), (called, signed))
        peer.same("Node's verifies", True, node.call("twilio.verifies", peer_twilio.TOKEN, signature, called, pairs), (called, signed))
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
        requests.append(Request("twilio", urllib.parse.urlencode(pairs).encode(), headers, "event", query, f"called {called}, signed {signed}"))
    peer.accept(requests)


SETTLED = [
    batch_signed_once,
    svix_in_and_out,
    type_in_percent_encoding,
    identity_in_percent_encoding,
    event_without_data,
    empty_batch,
    twilio_by_sha256,
    twilio_without_port,
]
