"""Measures functions on this machine: cold starts on a runtime API of its own, warm requests, and when retries come from a deployed stack.

    measure.py BOOTSTRAP DATABASE_URL CONFIG [GATEWAY RECEIVER]
"""
import atexit
import http.client
import http.server
import json
import os
import re
import socket
import socketserver
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

bootstrap, database, config = sys.argv[1:4]
gateway, receiver = (sys.argv[4:6] + [None, None])[:2]


def event(path, body, headers=None):
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"host": "hooks.example.com", **(headers or {})},
        "requestContext": {
            "accountId": "0", "apiId": "a", "domainName": "hooks.example.com", "stage": "$default", "requestId": "r",
            "http": {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.7", "userAgent": "m"},
            "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 1767225600000, "routeKey": "$default",
        },
        "body": body, "isBase64Encoded": False,
    }


class Runtime:
    """The runtime API for one process: gives invocations, and the time at which each was answered."""

    def __init__(self, handler, variables):
        self.queue, self.ready = [], threading.Semaphore(0)
        self.asked, self.answered = threading.Event(), threading.Event()
        outer = self

        class Api(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                outer.asked.set()
                outer.ready.acquire()
                number, body = outer.queue.pop(0)
                self.send_response(200)
                for name, value in {
                    "Lambda-Runtime-Aws-Request-Id": str(number),
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 30) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:0:function:f",
                    "Lambda-Runtime-Trace-Id": "Root=1-0-0",
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                outer.answer = self.rfile.read(int(self.headers["content-length"] or 0))
                outer.at = time.perf_counter()
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                outer.answered.set()

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Api)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        port = self.server.server_address[1]
        base = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}", "_HANDLER": handler, "AWS_LAMBDA_FUNCTION_NAME": handler,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_FUNCTION_VERSION": "1", "RUST_LOG": "tidehook=error"}
        self.began = time.perf_counter()
        self.process = subprocess.Popen([bootstrap], env={**base, **variables}, stdout=subprocess.DEVNULL)

    def invoke(self, body):
        self.answered.clear()
        began = time.perf_counter()
        self.queue.append((1, json.dumps(body).encode()))
        self.ready.release()
        if not self.answered.wait(30):
            raise SystemExit("an invocation was never answered")
        return began, self.at

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.server.shutdown()


def milliseconds(values):
    values = sorted(value * 1000 for value in values)
    return f"median {statistics.median(values):.1f} ms, p95 {values[int(len(values) * 0.95)]:.1f} ms"


variables = {"TIDEHOOK_CONFIG": config, "DATABASE_URL": database}
bearer = {"authorization": "Bearer plainly-fictional"}
accepted = event("/events/app/nobody", "{}", bearer)
print(f"binary: {os.path.getsize(bootstrap) / 1e6:.1f} MB")
cold, started = [], []
for _ in range(20):
    runtime = Runtime("ingress", variables)
    runtime.asked.wait(10)
    started.append(time.perf_counter() - runtime.began)
    _, at = runtime.invoke(accepted)
    assert json.loads(runtime.answer)["statusCode"] == 202, runtime.answer
    cold.append(at - runtime.began)
    runtime.stop()
print(f"cold ingress, process start to its first question: {milliseconds(started)}")
print(f"cold ingress, process start to its first answer (202, committed): {milliseconds(cold)}")


def in_a_row(once):
    """So many times one after the other, the first ones to warm up; seconds of each."""
    times = []
    for _ in range(300):
        began, ended = once()
        times.append(ended - began)
    return times[50:]


runtime = Runtime("ingress", variables)
warm = in_a_row(lambda: runtime.invoke(accepted))
runtime.stop()
print(f"warm ingress, invocation to answer: {milliseconds(warm)}")

# The container's handler, in the same binary over the same database, without its commits being shared: one request at a time.
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
own = config + ".container.yaml"
with open(config) as file, open(own, "w") as written:
    text, found = re.subn("^server:$", f"server:\n  port: {port}\n  bind: 127.0.0.1", file.read(), flags=re.MULTILINE)
    assert found == 1, "the configuration has a server in block style"
    written.write(text)
container = subprocess.Popen([bootstrap, "start"], env={**variables, "TIDEHOOK_CONFIG": own, "RUST_LOG": "tidehook=error"})
atexit.register(container.kill)
for _ in range(100):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").read()
        break
    except OSError:
        time.sleep(0.1)
connection = http.client.HTTPConnection("127.0.0.1", port)


def ask():
    began = time.perf_counter()
    connection.request("POST", "/events/app/nobody", "{}", bearer)
    connection.getresponse().read()
    return began, time.perf_counter()


contained = in_a_row(ask)
container.terminate()
container.wait()
print(f"container, request to answer: {milliseconds(contained)}")
print(f"warm ingress over the container's handler: {(statistics.median(warm) - statistics.median(contained)) * 1000:.2f} ms at the median")

ticker = Runtime("ticker", variables)
ticks = []
for n in range(50):
    began, at = ticker.invoke({})
    ticks.append(at - began)
ticker.stop()
print(f"idle tick: first {ticks[0] * 1000:.1f} ms, then {milliseconds(ticks[5:])}")

if gateway:
    host, receiver_port = receiver.split(":")
    times, arrived = {}, threading.Condition()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            with arrived:
                times.setdefault(self.path, []).append(time.time())
                first = len(times[self.path]) == 1
                arrived.notify_all()
            self.send_response(503 if first else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((host, int(receiver_port)), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for after in (5, 30, 120):
        request = urllib.request.Request(f"{gateway}/events/app/late.{after}", data=b"{}", headers=bearer, method="POST")
        urllib.request.urlopen(request).read()
    for after in (5, 30, 120):
        path = f"/late/{after}"
        with arrived:
            if not arrived.wait_for(lambda: len(times.get(path, [])) >= 2, after + 90):
                raise SystemExit(f"the retry after {after} s never came")
        late = times[path][1] - times[path][0] - after
        print(f"a retry due after {after} s came {late:.2f} s later than that")
