"""Posts requests signed by providers' own libraries, and verifies deliveries with one. Argument: the binary."""

import datetime
import http.client
import http.server
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks.webhooks import Webhook
from twilio.request_validator import RequestValidator

SIGNING = "whsec_cGxhaW5seSBmaWN0aW9uYWwga2V5"
SECRETS = {"stripe": "plainly-fictional", "github": "plainly-fictional", "slack": "plainly-fictional", "twilio": "plainly-fictional", "standard": SIGNING}
arrived = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        arrived.put((dict(self.headers.items()), body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def config(port, receiver, directory):
    sources = {name: {"type": "webhook", "verify": "standard-webhooks" if name == "standard" else name, "secret": secret} for name, secret in SECRETS.items()}
    handlers = {name: {"source": name, "url": f"http://127.0.0.1:{receiver}/{name}"} for name in SECRETS}
    return json.dumps(
        {
            "database": {"url": f"sqlite:{directory}/peers.db"},
            "server": {"bind": "127.0.0.1", "port": port, "allow_private_urls": True},
            "delivery": {"signing_secret": SIGNING},
            "sources": sources,
            "handlers": handlers,
        }
    )


def post(port, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def signed(name, port, body):
    """The path and headers that the provider's own library gives."""
    now = int(time.time())
    if name == "stripe":
        payload = f"{now}.{body}"
        signature = stripe.WebhookSignature._compute_signature(payload, SECRETS[name])
        header = f"t={now},v1={signature}"
        stripe.WebhookSignature.verify_header(body, header, SECRETS[name], 300)
        return "", {"Stripe-Signature": header}
    if name == "github":
        command = ["node", "tests/peers/octokit.mjs", os.path.abspath(os.environ["PEERS"]), SECRETS[name]]
        signature = subprocess.run(command, input=body.encode(), capture_output=True, check=True).stdout.decode()
        return "", {"X-Hub-Signature-256": signature, "X-GitHub-Event": "push"}
    if name == "slack":
        signature = SignatureVerifier(SECRETS[name]).generate_signature(timestamp=str(now), body=body)
        return "", {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": str(now)}
    if name == "twilio":
        url = f"http://127.0.0.1:{port}/webhooks/twilio?x=1"
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        signature = RequestValidator(SECRETS[name]).compute_signature(url, form)
        return "?x=1", {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
    at = datetime.datetime.now(tz=datetime.timezone.utc)
    signature = Webhook(SECRETS[name]).sign("msg_1", at, body)
    return "", {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def main(binary):
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "tidehook.yaml")
        with open(path, "w") as file:
            file.write(config(port, receiver.server_address[1], directory))
        server = subprocess.Popen([binary, "start", "--config", path], env={**os.environ, "RUST_LOG": "tidehook=warn"})
        try:
            for _ in range(600):
                # It listens before its database is ready, and answers 503 until then.
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
                    connection.request("GET", "/readyz")
                    if connection.getresponse().status == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.05)
            for name in SECRETS:
                body = "From=%2B15550100&Body=Hello+there" if name == "twilio" else json.dumps({"id": f"e-{name}", "type": "tide.turned"})
                query, headers = signed(name, port, body)
                status, answer = post(port, f"/webhooks/{name}{query}", body, headers)
                assert status == 200 and answer["jobs_created"] == 1, (name, status, answer)
                got_headers, got_body = arrived.get(timeout=20)
                assert got_body == body.encode(), (name, got_body)
                # Raises when the signature is not the one the specification asks for.
                if name != "twilio":  # this verifier also wants JSON
                    Webhook(SIGNING).verify(got_body, {k.lower(): v for k, v in got_headers.items()})
                status, answer = post(port, f"/webhooks/{name}{query}", body + "0", headers)
                assert status == 401, (name, status, answer)
                print(f"ok  {name}: signed by its own library, accepted, delivered, and refused when changed")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


main(sys.argv[1])
