"""The server under test, a receiver for what it delivers, and a client that posts to it. All of it on loopback."""

import concurrent.futures
import http.client
import http.server
import json
import os
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass

#: Requests that are open at the same time.
CONCURRENCY = 8
#: Seconds until the server must answer that it is ready.
READY_SECONDS = 30
#: Seconds until every delivery of a step must have arrived.
ARRIVAL_SECONDS = 30
#: The bearer token of the management routes.
API_TOKEN = "plainly-fictional-token"


@dataclass
class Arrival:
    """A delivery as the receiver got it; header names are in lower case."""

    headers: dict
    body: bytes

    @property
    def key(self):
        """Which handler got which event."""
        return self.headers.get("x-tidehook-handler"), self.headers.get("x-tidehook-event-id")

    @property
    def kind(self):
        """The type, with what no header may hold in its place again."""
        kind = self.headers.get("x-tidehook-event-type", "")
        return re.sub("(?:%[89A-F][0-9A-F])+", lambda found: urllib.parse.unquote(found[0]), kind)


class Receiver:
    """An HTTP server that answers 200 and puts every delivery into a queue."""

    def __init__(self):
        arrived = self.arrived = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                arrived.put(Arrival({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.all = []

    def wait(self, keys):
        """The deliveries with these keys, once all are there or the time is over; keys that are missing then are left out."""
        found = {arrival.key: arrival for arrival in self.all}
        missing = set(keys) - found.keys()
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while missing:
            try:
                arrival = self.arrived.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                break
            self.all.append(arrival)
            found[arrival.key] = arrival
            missing.discard(arrival.key)
        return {key: found[key] for key in keys if key in found}

    def drain(self):
        """Takes what nobody waited for out of the queue."""
        while not self.arrived.empty():
            self.all.append(self.arrived.get())
        return self.all


def free_port():
    """A port of loopback that nobody listens to at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Tidehook:
    """The running binary with a configuration of sources and handlers. Leaving the context ends it."""

    def __init__(self, binary, sources, handlers, signing_secret):
        self.binary, self.port, self.receiver = binary, free_port(), Receiver()
        url = f"http://127.0.0.1:{self.receiver.port}"
        self.config = {
            "server": {"bind": "127.0.0.1", "port": self.port, "allow_private_urls": True},
            "api": {"auth_token": API_TOKEN},
            "delivery": {"signing_secret": signing_secret},
            "sources": sources,
            "handlers": {name: {"url": f"{url}/{name}", **rest} for name, rest in handlers.items()},
        }
        self.origin = f"http://127.0.0.1:{self.port}"
        self.local = threading.local()
        self.pool = concurrent.futures.ThreadPoolExecutor(CONCURRENCY)

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        path = os.path.join(self.directory.name, "tidehook.yaml")
        self.config["database"] = {"url": f"sqlite:{self.directory.name}/peers.db"}
        with open(path, "w") as file:
            json.dump(self.config, file)
        environment = {**os.environ, "RUST_LOG": "tidehook=error"}
        self.process = subprocess.Popen([self.binary, "start", "--config", path], env=environment)
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.pool.shutdown()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.directory.cleanup()

    def wait_until_ready(self):
        """It listens before its database is ready, and answers 503 until then."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.02)
        raise SystemExit("the server does not get ready")

    def ask(self, method, path, body=None, headers=None):
        """Status, content type and body of an answer. Each thread keeps its connection."""
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            is_fresh = connection is None
            if is_fresh:
                connection = self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request(method, path, body, headers or {})
                response = connection.getresponse()
                return response.status, response.headers.get("content-type", ""), response.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                # A connection that was kept may have been closed meanwhile; a fresh one may not.
                if is_fresh or attempt == 2:
                    raise

    def ask_all(self, requests):
        """The answers to `(method, path, body, headers)`, in their order, some of them at the same time."""
        return list(self.pool.map(lambda request: self.ask(*request), requests))

    def stored(self):
        """Every stored event by its id."""
        events, after = {}, ""
        while True:
            path = f"/api/events?limit=1000{after}"
            status, _, body = self.ask("GET", path, headers={"authorization": f"Bearer {API_TOKEN}"})
            if status != 200:
                raise SystemExit(f"{path} is answered {status}: {body!r}")
            page = json.loads(body)
            events.update((event["id"], event) for event in page["events"])
            if not page["has_more"]:
                return events
            after = f"&after={page['events'][-1]['id']}"
