"""The example consumers in Python and TypeScript receive, acknowledge and give back what a server has for them.

Argument: the binary. `PEERS` names the folder under which the packages of Node are installed."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "plainly-fictional"


def call(base, method, path, body=None):
    request = urllib.request.Request(base + path, method=method)
    request.add_header("Authorization", f"Bearer {KEY}")
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=40) as response:
        return json.load(response)


def play(base, name, command):
    """One consumer gets four messages, one of which it fails: it is received again, and fails for good."""
    for body in ({"n": 1}, {"fail": True}, {"n": 2}, {"n": 3}):
        call(base, "POST", "/events/app/job.new", body)
    environment = {**os.environ, "TIDEHOOK_URL": base, "QUEUE": "jobs", "QUEUE_KEY": KEY, "MESSAGES": "5"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, (name, ran.stderr)
    printed = sorted(line.replace(" ", "") for line in ran.stdout.splitlines())
    assert printed == ['job.new{"n":1}', 'job.new{"n":2}', 'job.new{"n":3}'], (name, ran.stdout)
    queue = call(base, "GET", "/api/queues/jobs")
    assert (queue["depth"], queue["dead"]) == (0, 1), (name, queue)
    dead = call(base, "GET", "/api/queues/jobs/dlq")["messages"][0]
    assert "the payload asks for a failure" in dead["last_error"], (name, dead)
    assert call(base, "POST", "/api/queues/jobs/retry", {})["retried"] == 1
    assert call(base, "POST", "/api/queues/jobs/drain", {})["drained"] == 1
    print(f"the consumer in {name} received, acknowledged and gave back what it should")


def main(binary):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, "tidehook.yaml")
        text = (ROOT / "examples/pull-queue.yaml").read_text().replace("max_attempts: 5", "max_attempts: 2")
        config.write_text(text + f"api: {{ auth_token: {KEY} }}\ndatabase: {{ url: 'sqlite:{directory}/t.db' }}\n")
        text = config.read_text().replace("bind: 127.0.0.1 }", f"bind: 127.0.0.1, port: {port} }}")
        config.write_text(text)
        environment = {**os.environ, "QUEUE_KEY": KEY}
        server = subprocess.Popen([binary, "start", "--config", str(config)], env=environment, stderr=subprocess.DEVNULL)
        base = f"http://127.0.0.1:{port}"
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(base + "/readyz", timeout=5).read()
                    break
                except OSError:
                    assert server.poll() is None, "the server has ended"
                    time.sleep(0.1)
            play(base, "Python", [sys.executable, str(ROOT / "examples/queues/consumer.py")])
            tsx = pathlib.Path(os.environ["PEERS"]).resolve() / "node_modules/.bin/tsx"
            play(base, "TypeScript", [str(tsx), str(ROOT / "examples/queues/consumer.mts")])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


if __name__ == "__main__":
    main(sys.argv[1])
