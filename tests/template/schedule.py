"""Waits until the schedule's tick finds a job that nobody was told of, and a worker makes its call."""
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

url, receiver = sys.argv[1], sys.argv[2]
host, port = receiver.split(":")
got = threading.Event()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.end_headers()
        if self.path == "/ok?deploy":
            got.set()

    def log_message(self, *_):
        pass


server = HTTPServer((host, int(port)), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
now = int(time.time() * 1000)
event, job = "01SCHED000000000000000000E", "01SCHED000000000000000000J"
insert = f"""
INSERT INTO events (id, source, kind, headers, body, created_at) VALUES ('{event}', 'github', 'push', '[]', '{{}}', {now});
INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at, created_at)
VALUES ('{job}', '{event}', 'handler', 'deploy', 'handler:deploy', 'pending', 0, 0, 0, {now - 60000}, {now});
"""
subprocess.run(["psql", "-q", "-w", url, "-v", "ON_ERROR_STOP=1", "-c", insert], check=True)
began = time.time()
# The schedule of the template ticks each minute; a tick and ten seconds is what is promised.
if not got.wait(70):
    sys.exit("no tick found the job within 70 s")
print(f"a tick of the schedule found the job after {time.time() - began:.1f} s")
