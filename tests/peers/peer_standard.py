"""Standard Webhooks by the libraries of its authors and of Svix, in Python and Node: what comes in, and what goes out."""

import base64
import datetime
import time

import nacl.signing
import standardwebhooks.webhooks
import svix.webhooks

from checks import Peer, Request
from corpus import documents

SECRET = "whsec_" + base64.b64encode(b"plainly fictional, coming in").decode()
#: What tidehook signs its deliveries with.
OUTBOUND = "whsec_" + base64.b64encode(b"plainly fictional, going out").decode()
SEED = b"plainly-fictional-seed-of-a-key!"
PUBLIC = "whpk_" + base64.b64encode(bytes(nacl.signing.SigningKey(SEED).verify_key)).decode()
OTHER = "whsec_" + base64.b64encode(b"plainly fictional, by somebody else").decode()
SOURCES = {
    "standard": {"verify": "standard-webhooks", "secret": SECRET},
    "standard-public-key": {"verify": "standard-webhooks", "secret": PUBLIC},
}
#: Requests of each library.
COUNT = 100


def run(tidehook, node):
    python(tidehook, "standardwebhooks of PyPI", "webhook", standardwebhooks.webhooks.Webhook)
    python(tidehook, "svix of PyPI", "svix", svix.webhooks.Webhook)
    of_node(tidehook, node, "standardwebhooks of npm", "webhook", "standardwebhooks")
    of_node(tidehook, node, "svix of npm", "svix", "svix")
    public_key(tidehook)


def bodies(name):
    """Documents with a type, and every seventh without one."""
    return documents(COUNT, name, lambda n: {"type": f"tide.turned_{n % 5}"} if n % 7 else {"about": "no type"})


def request(source, prefix, name, number, document, body, moment, signature):
    headers = {
        "Content-Type": "application/json",
        f"{prefix}-id": f"msg_{name.replace(' ', '_')}_{number}",
        f"{prefix}-timestamp": str(moment),
        f"{prefix}-signature": signature,
    }
    kind = document.get("type", "event")
    return Request(source, body, headers, kind, label=f"{name} {number}")


def with_others(signature, number):
    """The signature alone, or between those of other keys and versions, as while secrets change."""
    return [signature, f"v1,{'A' * 43}= {signature}", f"{signature} v1,{'B' * 43}=", f"v2,x v1a,{'C' * 86}== {signature}"][number % 4]


def python(tidehook, name, prefix, webhook):
    """Signed in Python; what it refuses, because of its age or key, must be refused."""
    peer = Peer(name, tidehook)

    def signed(number, document, body, moment, secret=SECRET, tag=name):
        at = datetime.datetime.fromtimestamp(moment, tz=datetime.timezone.utc)
        own = webhook(secret).sign(f"msg_{tag.replace(' ', '_')}_{number}", at, body.decode())
        return request("standard", prefix, tag, number, document, body, moment, own)

    now = int(time.time())
    requests = []
    for number, (document, body) in enumerate(bodies(name)):
        one = signed(number, document, body, now - number)
        one.headers[f"{prefix}-signature"] = with_others(one.headers[f"{prefix}-signature"], number)
        webhook(SECRET).verify(body, one.headers)
        requests.append(one)
    peer.repeat(peer.accept(requests)[::10])
    document, body = bodies(name)[3]
    refused = [signed(0, document, body, moment, tag=f"{name} stale") for moment in (now - 330, now + 330, 1)]
    refused.append(signed(0, document, body, now, OTHER, f"{name} of another key"))
    for one in refused:
        try:
            webhook(SECRET).verify(one.body, one.headers)
            peer.same("the library refuses it", True, False, one.label)
        except Exception as why:
            peer.same("the library refuses it", "WebhookVerificationError", type(why).__name__, one.label)
    peer.refuse(refused)
    peer.end()


def of_node(tidehook, node, name, prefix, library):
    """Signed in Node."""
    peer = Peer(name, tidehook)
    now, made = int(time.time()), bodies(name)
    ids = [f"msg_{name.replace(' ', '_')}_{number}" for number in range(len(made))]
    signatures = node.map(f"{library}.sign", [[SECRET, ids[n], now - n, body.decode()] for n, (_, body) in enumerate(made)])
    requests = [
        request("standard", prefix, name, number, document, body, now - number, with_others(signatures[number], number))
        for number, (document, body) in enumerate(made)
    ]
    verified = node.map(f"{library}.verifies", [[SECRET, one.headers, one.body.decode()] for one in requests])
    for one, is_verified in zip(requests, verified):
        peer.same("the library verifies it", True, is_verified, one.label)
    peer.repeat(peer.accept(requests)[::10])
    peer.end()


def public_key(tidehook):
    """`v1a`, the asymmetric signatures of the specification, made by PyNaCl."""
    peer = Peer("PyNaCl, Standard Webhooks by public key", tidehook)
    key, now, requests = nacl.signing.SigningKey(SEED), int(time.time()), []
    for number, (document, body) in enumerate(bodies(peer.name)):
        one = request("standard-public-key", "webhook", "public_key", number, document, body, now, "")
        signature = key.sign(f"{one.headers['webhook-id']}.{now}.".encode() + body).signature
        one.headers["webhook-signature"] = f"v1a,{base64.b64encode(signature).decode()}"
        requests.append(one)
    peer.accept(requests)
    peer.end()


def outbound(tidehook, node):
    """Verifies everything that was delivered, with each library that can. Those of Node are given texts only."""
    texts, of_svix = [], {(name, one.event) for one in Peer.taken for name in one.request.receivers if "svix-id" in one.request.headers}
    for arrival in tidehook.receiver.drain():
        try:
            texts.append((arrival, arrival.body.decode()))
        except UnicodeDecodeError:
            pass
    # What came in from Svix and goes out again is among the cases that were settled.
    without_svix = [(arrival, text) for arrival, text in texts if arrival.key not in of_svix]
    for name, webhook, options in (
        ("standardwebhooks of PyPI, deliveries", standardwebhooks.webhooks.Webhook, {"json_parse": False}),
        ("svix of PyPI, deliveries", svix.webhooks.Webhook, {}),
    ):
        peer = Peer(name, tidehook)
        verifier = webhook(OUTBOUND)
        mine = without_svix if "svix" in name else texts
        for arrival, text in mine:
            for body, expected in ((text, True), (text + " ", False)):
                try:
                    verifier.verify(body, arrival.headers, **options)
                    is_verified = True
                except Exception as why:
                    is_verified = False
                    peer.same("why it is refused", "WebhookVerificationError", type(why).__name__, why)
                peer.same("verifies" if expected else "verifies when changed", expected, is_verified, arrival.headers)
        peer.count("deliveries verified", len(mine))
        peer.end()
    for library in ("standardwebhooks", "svix"):
        peer = Peer(f"{library} of npm, deliveries", tidehook)
        # Svix's reads what it verifies as JSON.
        mine = texts if library == "standardwebhooks" else [(a, t) for a, t in without_svix if t.startswith(("{", "["))]
        for expected, suffix in ((True, ""), (False, " ")):
            verified = node.map(f"{library}.verifies", [[OUTBOUND, arrival.headers, text + suffix] for arrival, text in mine])
            for (arrival, _), is_verified in zip(mine, verified):
                peer.same("verifies" if expected else "verifies when changed", expected, is_verified, arrival.headers)
        peer.count("deliveries verified", len(mine))
        peer.end()
