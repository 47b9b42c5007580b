"""What every peer asks of the server, counted: accepted, delivered byte for byte, refused when a byte is changed."""

import json
from dataclasses import dataclass, field

#: Mismatches that are printed in full, for each peer.
SHOWN = 3


@dataclass
class Request:
    """A request that must become one event."""

    source: str
    body: bytes
    headers: dict
    #: The event's type.
    kind: str
    #: The query, question mark included, where there is one.
    query: str = ""
    #: What it is, for a mismatch.
    label: str = ""
    #: Who gets it; the handler of the source's name when empty.
    handlers: tuple = ()
    #: Whether a changed body must be refused.
    signed: bool = True
    #: Where it is posted to, if not to `/webhooks/SOURCE`.
    path: str = ""
    #: The status of the answer.
    status: int = 200

    @property
    def target(self):
        return (self.path or f"/webhooks/{self.source}") + self.query

    @property
    def receivers(self):
        return self.handlers or (self.source,)

    def post(self):
        return "POST", self.target, self.body, self.headers

    def changed(self, number):
        """The same with one bit of one byte turned, at a place that depends on the number."""
        body = bytearray(self.body)
        places = (len(body) // 2, 0, len(body) - 1, len(body) * (number % 97) // 97)
        body[places[number % len(places)]] ^= 1
        return "POST", self.target, bytes(body), self.headers


@dataclass
class Taken:
    """A request with the event it became and its deliveries."""

    request: Request
    event: str
    arrivals: list = field(default_factory=list)
    #: Whether its deliveries had the type that was expected.
    is_typed: bool = True


class Peer:
    """One library from outside and what was compared on its behalf."""

    #: Everything that was accepted so far, and mismatches of all peers.
    taken = []
    mismatches_of_all = 0

    def __init__(self, name, tidehook):
        self.name, self.tidehook = name, tidehook
        self.counts, self.comparisons, self.mismatches = {}, 0, 0

    def count(self, what, number=1):
        self.counts[what] = self.counts.get(what, 0) + number

    def same(self, what, expected, got, detail=""):
        """Compares, and tells what differs."""
        self.comparisons += 1
        if expected == got:
            return True
        self.mismatches += 1
        Peer.mismatches_of_all += 1
        if self.mismatches <= SHOWN:
            print(f"MISMATCH  {self.name}: {what}\n  expected {short(expected)}\n  got      {short(got)}\n  {short(detail)}", flush=True)
        return False

    def accept(self, requests):
        """Posts each, changed and as it is. It must be refused when changed, accepted once, and delivered as it is."""
        signed = [request for request in requests if request.signed]
        for request, (status, _, body) in zip(signed, self.tidehook.ask_all([r.changed(n) for n, r in enumerate(signed)])):
            self.same("a changed body", 401, status, (request.label, request.target, request.headers, body))
        if signed:
            self.count("refused when changed", len(signed))
        taken = []
        for request, (status, _, body) in zip(requests, self.tidehook.ask_all([r.post() for r in requests])):
            detail = (request.label, request.target, request.headers, request.body, body)
            if not self.same("status", request.status, status, detail):
                continue
            answer = json.loads(body)
            self.same("is a duplicate", False, answer["duplicate"], detail)
            self.same("deliveries", len(request.receivers), answer["jobs_created"], detail)
            taken.append(Taken(request, answer["event_id"]))
        self.count("requests", len(requests))
        self.delivered(taken)
        return taken

    def delivered(self, taken):
        """Waits for the deliveries and compares them."""
        found = self.tidehook.receiver.wait([(name, one.event) for one in taken for name in one.request.receivers])
        for one in taken:
            request = one.request
            for name in request.receivers:
                arrival = found.get((name, one.event))
                if not self.same(f"is delivered to {name}", True, arrival is not None, (request.label, one.event)):
                    continue
                one.arrivals.append(arrival)
                detail = (request.label, one.event, request.headers)
                self.same("delivered bytes", request.body, arrival.body, detail)
                one.is_typed &= self.same("type", request.kind, arrival.kind, detail)
                self.same("source", request.source, arrival.headers.get("x-tidehook-source"), detail)
                sent = {name.lower(): value for name, value in request.headers.items()}
                if "content-type" in sent:
                    self.same("content type", sent["content-type"], arrival.headers.get("content-type"), detail)
                self.count("deliveries")
        Peer.taken.extend(taken)

    def repeat(self, taken):
        """Posts what was accepted again: the answer names the first event."""
        for one, (status, _, body) in zip(taken, self.tidehook.ask_all([one.request.post() for one in taken])):
            detail = (one.request.label, one.request.headers, body)
            if self.same("status of a repeat", one.request.status, status, detail):
                answer = json.loads(body)
                expected = (True, one.event, 0)
                self.same("a repeat", expected, (answer["duplicate"], answer["event_id"], answer["jobs_created"]), detail)
        self.count("repeats", len(taken))

    def refuse(self, requests):
        """Posts what the library itself refuses."""
        for request, (status, _, body) in zip(requests, self.tidehook.ask_all([r.post() for r in requests])):
            self.same("what the library refuses", 401, status, (request.label, request.target, request.headers, body))
        self.count("refused", len(requests))

    def end(self):
        """Prints the one line of this peer."""
        counts = ", ".join(f"{number} {what}" for what, number in sorted(self.counts.items(), key=lambda item: item[0] != "requests"))
        verdict = "ok " if not self.mismatches else "BAD"
        told = f", {self.mismatches} MISMATCHES" if self.mismatches else ""
        print(f"{verdict} {self.name}: {counts}; {self.comparisons} comparisons{told}", flush=True)


def short(value):
    """A value as text that fits on a screen."""
    text = repr(value)
    return text if len(text) <= 900 else f"{text[:900]}… ({len(text)} characters)"
