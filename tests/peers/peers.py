"""Requests made and signed by outsiders' own libraries, and deliveries verified by them. Argument: the binary.

`PEERS` names the folder under which the packages of Node are installed."""

import os
import sys
import time

import settled
import peer_cloudevents
import peer_discord
import peer_github
import peer_slack
import peer_standard
import peer_stripe
import peer_twilio
from checks import Peer
from harness import Tidehook
from node import Node

PEERS = [peer_github, peer_standard, peer_stripe, peer_twilio, peer_slack, peer_discord, peer_cloudevents, settled]


def configured():
    """The sources of all peers, and a handler for each."""
    sources, handlers = {}, {}
    for module in PEERS:
        sources.update({name: {"type": "webhook", **source} for name, source in getattr(module, "SOURCES", {}).items()})
        sources.update(getattr(module, "API_SOURCES", {}))
        handlers.update(getattr(module, "HANDLERS", {}))
    return sources, {**{name: {"source": name} for name in sources}, **handlers}


def books(tidehook):
    """What is stored is what was accepted, under the types that were expected, and nobody got anything else."""
    peer = Peer("books", tidehook)
    stored = tidehook.stored()
    peer.same("stored events", {one.event for one in Peer.taken}, set(stored))
    for one in filter(lambda one: one.is_typed, Peer.taken):
        peer.same("stored type", one.request.kind, stored.get(one.event, {}).get("event_type"), one.request.label)
    keys = [arrival.key for arrival in tidehook.receiver.drain()]
    expected = [(name, one.event) for one in Peer.taken for name in one.request.receivers]
    peer.same("deliveries, each once", sorted(expected), sorted(keys))
    peer.count("events", len(stored))
    peer.count("deliveries", len(keys))
    peer.end()


def main(binary):
    began = time.monotonic()
    sources, handlers = configured()
    with Node(os.environ["PEERS"]) as node, Tidehook(binary, sources, handlers, peer_standard.OUTBOUND) as tidehook:
        for module in PEERS:
            module.run(tidehook, node)
        peer_standard.outbound(tidehook, node)
        books(tidehook)
    print(f"{Peer.mismatches_of_all} mismatches in {time.monotonic() - began:.0f} s")
    return 1 if Peer.mismatches_of_all else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
