"""GitHub: every example payload that Octokit publishes, signed by Octokit, as JSON and as a form."""

import json

from checks import Peer, Request

SECRET = "plainly-fictional-github"
SOURCES = {"github": {"verify": "github", "secret": SECRET}}
FORM = "application/x-www-form-urlencoded"


def run(tidehook, node):
    examples = node.call("github.examples")
    forms = node.map("github.form", [[text] for _, _, text in examples])
    octokit(tidehook, node, "octokit, JSON", "json", "application/json", examples, [text for _, _, text in examples])
    octokit(tidehook, node, "octokit, forms", "form", FORM, examples, forms)


def octokit(tidehook, node, name, prefix, content_type, examples, bodies):
    """Posts each example in one encoding. Its type is that of the header, joined with the action that the payload names."""
    peer = Peer(name, tidehook)
    signatures = node.map("github.sign", [[SECRET, body] for body in bodies])
    verified = node.map("github.verify", [[SECRET, body, signature] for body, signature in zip(bodies, signatures)])
    requests = []
    for number, ((label, event, text), body, signature, is_verified) in enumerate(zip(examples, bodies, signatures, verified)):
        peer.same("Octokit verifies its own signature", True, is_verified, label)
        action = json.loads(text).get("action")
        headers = {
            "Content-Type": content_type,
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": f"{prefix}-{number:08d}-plainly-fictional",
            "X-Hub-Signature-256": signature,
        }
        kind = f"{event}.{action}" if isinstance(action, str) and action else event
        requests.append(Request("github", body.encode(), headers, kind, label=label))
    taken = peer.accept(requests)
    peer.count("types", len({request.kind for request in requests}))
    for one in taken:
        for arrival in one.arrivals:
            for name in ("X-GitHub-Event", "X-GitHub-Delivery"):
                peer.same(f"delivered {name}", one.request.headers[name], arrival.headers.get(name.lower()), one.request.label)
    peer.repeat(taken[::10])
    peer.end()
