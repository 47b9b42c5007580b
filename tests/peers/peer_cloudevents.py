"""CloudEvents, made by the SDKs for Python and JavaScript: binary and structured mode, batches, and what a repeat is."""

import base64
import datetime
import json
import time
from dataclasses import dataclass

import svix.webhooks
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v03.event import CloudEvent as EventV03
from cloudevents.core.v1.event import CloudEvent as EventV1

import peer_standard
from checks import Peer, Request, Taken
from harness import API_TOKEN

SOURCES = {"clouds": {"verify": "none"}}
#: The API's own door for events: `POST /events/clouds-app/TYPE`.
API_SOURCES = {"clouds-app": {"type": "event"}}
BATCH = "application/cloudevents-batch+json"
#: Events of each mode and library.
COUNT = 60


@dataclass
class Made:
    """An event as a library has written it."""

    attributes: dict
    headers: dict
    body: bytes
    mode: str
    label: str


def attributes(number, name):
    """Attributes that both libraries write; every third event has all of the optional ones."""
    made = {"type": f"com.example.tide.turned_{number % 5}", "source": f"/{name}/{number % 3}", "id": f"{name}-{number}"}
    made["specversion"] = "0.3" if number % 10 == 9 else "1.0"
    if number % 3 == 0:
        made.update(subject="pier/4?x=1&y=2", tideheight="4.2m")
        made["dataschema" if made["specversion"] == "1.0" else "schemaurl"] = "https://example.com/schema#v1"
    return made


#: Data with its content type: JSON, text, XML, bytes that are no text, nothing.
DATA = [
    ({"height": 4.25, "large": 2**64 + 1, "small": 1e-7, "whole": 1.0, "words": ["Gezeiten für Ärzte", "潮", "🌊"]}, "application/json"),
    ("high water at noon, für alle", "text/plain; charset=utf-8"),
    ("<tide>é</tide>", "application/xml"),
    (bytes(range(256)), "application/octet-stream"),
    (None, None),
]


def by_python(mode, number, name="pypi"):
    own, (data, content_type) = attributes(number, name), DATA[number % len(DATA)]
    if content_type:
        own["datacontenttype"] = content_type
    own["time"] = datetime.datetime(2026, 1, 31, 10, number % 60, 0, 123000, tzinfo=datetime.timezone.utc)
    return write(own, data, mode, f"{name}, {mode} {number}")


def write(own, data, mode, label):
    """An event by the library for Python."""
    event = (EventV1 if own["specversion"] == "1.0" else EventV03)(attributes=dict(own), data=data)
    message = (to_binary_event if mode == "binary" else to_structured_event)(event)
    return Made(own, message.headers, message.body, mode, label)


def read_by_python(headers, body):
    """What the library for Python reads from a message, as text."""
    kept = {name.lower(): value for name, value in headers.items() if name.lower() == "content-type" or name.lower().startswith("ce-")}
    event = from_http_event(HTTPMessage(kept, body))
    return json.dumps([event.get_attributes(), event.get_data()], default=repr, sort_keys=True)


def by_node(node, mode, numbers, name="npm"):
    asked = []
    for number in numbers:
        own, (data, content_type) = attributes(number, name), DATA[number % len(DATA)]
        own["time"] = "2026-01-31T10:00:00.123Z"
        if content_type:
            own["datacontenttype"] = content_type
            own["base64" if isinstance(data, bytes) else "data"] = base64.b64encode(data).decode() if isinstance(data, bytes) else data
        asked.append(own)
    written = node.map("cloudevents.write", [[mode, own] for own in asked])
    return [
        Made(own, {k: str(v) for k, v in one["headers"].items()}, base64.b64decode(one["base64"]), mode, f"{name}, {mode} {own['id']}")
        for own, one in zip(asked, written)
    ]


def request(one, source="clouds"):
    return Request(source, one.body, one.headers, one.attributes["type"], label=one.label, signed=False)


def api_request(one):
    """The same at the API's door: the event's own type overrides the one of the path."""
    headers = {**one.headers, "Authorization": f"Bearer {API_TOKEN}"}
    path = "/events/clouds-app/overridden"
    return Request("clouds-app", one.body, headers, one.attributes["type"], label=one.label, signed=False, path=path, status=202)


def run(tidehook, node):
    python, javascript = [], []
    for mode in ("binary", "structured"):
        made = [by_python(mode, number, f"pypi-{mode}") for number in range(COUNT)]
        # Those without data and content type are among the cases that were settled.
        python += [one for one in made if "content-type" in one.headers]
        javascript += by_node(node, mode, range(COUNT), f"npm-{mode}")
    events(tidehook, "cloudevents of PyPI", python, read_by_python)
    events(tidehook, "cloudevents of npm", javascript, lambda headers, body: node.call("cloudevents.read", headers, body.decode("latin-1")))
    identities(tidehook, node)
    signed(tidehook, node)
    batches(tidehook, node)


def events(tidehook, name, made, read):
    """Each is accepted under its own type, at both doors, delivered as the same event, and known again."""
    peer = Peer(name, tidehook)
    taken = peer.accept([request(one) for one in made])
    for one, original in zip(taken, made):
        for arrival in one.arrivals:
            kept = {k: v for k, v in arrival.headers.items() if k == "content-type" or k.startswith("ce-")}
            peer.same("the delivery is the same event", read(original.headers, original.body), read(kept, arrival.body), original.label)
    peer.repeat(taken)
    peer.repeat(peer.accept([api_request(one) for one in made]))
    peer.end()


def identities(tidehook, node):
    """Source and id together make an event the same one, whatever library writes it, and in whatever mode."""
    peer = Peer("cloudevents of both, repeats over modes and libraries", tidehook)
    firsts = [by_python("structured", number, "same") for number in range(0, 40)]
    taken = peer.accept([request(one) for one in firsts])
    others = [
        [by_python("binary", number, "same") for number in range(0, 40)],
        by_node(node, "binary", range(0, 40), "same"),
        by_node(node, "structured", range(0, 40), "same"),
    ]
    for made in others:
        peer.repeat([Taken(request(again), first.event) for first, again in zip(taken, made)])
    # The same id from elsewhere is another event, and so is another id from the same place.
    for change in ({"source": "/elsewhere"}, {"id": "elsewhere"}):
        made = []
        for number in (0, 1, 2):
            own = {**attributes(number, "same"), **change}
            if "id" in change:
                own["id"] += str(number)
            made.append(write(own, {"n": number}, "structured", f"{change}"))
        peer.accept([request(one) for one in made])
    peer.end()


def signed(tidehook, node):
    """Structured events that Svix's library signs: the type is that of the event, and they cannot be changed."""
    peer = Peer("cloudevents of both, signed by svix", tidehook)
    made = [by_python("structured", number, "signed") for number in range(30)]
    made += by_node(node, "structured", range(30), "signed-npm")
    requests = []
    for one in made:
        headers = {**one.headers, **svix_headers(f"msg_{one.attributes['id']}", one.body.decode())}
        requests.append(Request("standard", one.body, headers, one.attributes["type"], label=one.label))
    peer.repeat(peer.accept(requests)[::10])
    peer.end()


def batches(tidehook, node):
    """A batch of the SDKs' structured events is one event each; the SDK for JavaScript reads the same ones from it."""
    peer = Peer("cloudevents of both, batches", tidehook)
    for number in range(12):
        members = [by_python("structured", n, f"batch-{number}") for n in range(1, 2 + number * 3)]
        members += by_node(node, "structured", range(100, 102 + number), f"batch-{number}-npm")
        texts = [one.body.decode() for one in members]
        body = f"[{','.join(texts)}]" if number % 2 else "[\n  " + " ,\n  ".join(texts) + "\n]"
        headers = {"Content-Type": BATCH if number % 3 else f"{BATCH}; charset=utf-8"}
        read = json.loads(node.call("cloudevents.read", headers, body))
        peer.same("events that the SDK reads", [one.attributes["id"] for one in members], [one["id"] for one in read])
        if number % 4 == 3:
            headers["Authorization"] = f"Bearer {API_TOKEN}"
            post_batch(peer, "clouds-app", headers, body, members, "/events/clouds-app/overridden", 202)
        else:
            post_batch(peer, "clouds", headers, body, members)
    peer.end()


def svix_headers(message, body):
    moment = datetime.datetime.fromtimestamp(int(time.time()), tz=datetime.timezone.utc)
    signature = svix.webhooks.Webhook(peer_standard.SECRET).sign(message, moment, body)
    return {"svix-id": message, "svix-timestamp": str(int(moment.timestamp())), "svix-signature": signature}


def post_batch(peer, source, headers, body, members, path="", expected=200):
    """One request, as many events as it has members, each delivered as what it is; a second time all are repeats."""
    path = path or f"/webhooks/{source}"
    status, _, answer = peer.tidehook.ask("POST", path, body.encode(), headers)
    detail = (len(members), source, headers, answer)
    if not peer.same("status of a batch", expected, status, detail):
        return
    answers = json.loads(answer).get("events", [json.loads(answer)])
    peer.same("events of a batch", [False] * len(members), [one.get("duplicate") for one in answers], detail)
    peer.same("different events", len(members), len({one.get("event_id") for one in answers}), detail)
    taken = [(one, answer["event_id"]) for one, answer in zip(members, answers) if not answer["duplicate"]]
    found = peer.tidehook.receiver.wait([(source, event) for _, event in taken])
    for one, event in taken:
        arrival = found.get((source, event))
        if peer.same("is delivered", True, arrival is not None, (one.label, event)):
            peer.same("type", one.attributes["type"], arrival.kind, one.label)
            peer.same("content type", "application/cloudevents+json", arrival.headers.get("content-type"), one.label)
            peer.same("the same event", read_by_python(one.headers, one.body), read_by_python(arrival.headers, arrival.body), one.label)
            own = request(one, source)
            own.headers = {**one.headers, **{name: value for name, value in headers.items() if name != "Content-Type"}}
            Peer.taken.append(Taken(own, event, [arrival]))
    status, _, again = peer.tidehook.ask("POST", path, body.encode(), headers)
    answers_again = json.loads(again).get("events", [json.loads(again)])
    expected = [(True, answer["event_id"]) for answer in answers]
    peer.same("a batch again", expected, [(one.get("duplicate"), one.get("event_id")) for one in answers_again], detail)
    peer.count("requests", 2)
    peer.count("members of batches", len(members))
