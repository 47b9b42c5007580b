#!/usr/bin/env bash
# Sends one event to a deployed stack and expects one delivery: localstack/smoke.sh BASE_URL
# The stack's configuration has a source `app` and a handler that calls http://127.0.0.1:$PORT.
set -euo pipefail
base=${1:?localstack/smoke.sh BASE_URL, as localstack/deploy.sh prints it}
python3 - "$base" "${PORT:-8099}" <<'PYTHON'
import http.server, json, sys, threading, urllib.request
base, port = sys.argv[1], int(sys.argv[2])
got = threading.Event()
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.end_headers()
        got.set()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", port), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
request = urllib.request.Request(f"{base}/events/app/smoke", data=b'{"smoke": true}', method="POST")
print(json.load(urllib.request.urlopen(request)))
if not got.wait(30):
    sys.exit("accepted, but nothing was delivered within 30 s")
print("delivered")
PYTHON
