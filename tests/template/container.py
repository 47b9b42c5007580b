"""The binary of functions is the container where no runtime API is: it takes an event in, and ends in good order."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

bootstrap, work, url = sys.argv[1], sys.argv[2], sys.argv[3]
refused = subprocess.run([bootstrap, "validate"], env={}, capture_output=True, text=True)
assert refused.returncode == 2 and "`start`" in refused.stderr, refused
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
config = os.path.join(work, "container.yaml")
with open(config, "w") as file:
    file.write(f"server: {{ port: {port}, bind: 127.0.0.1 }}\nsources: {{ app: {{ type: event }} }}\n")
    file.write(f"database: {{ driver: postgres, url: \"{url}\" }}\n")
container = subprocess.Popen([bootstrap], env={"TIDEHOOK_CONFIG": config})
base = f"http://127.0.0.1:{port}"
for _ in range(100):
    try:
        urllib.request.urlopen(f"{base}/readyz").read()
        break
    except OSError:
        assert container.poll() is None, "it has ended"
        time.sleep(0.1)
answer = urllib.request.urlopen(urllib.request.Request(f"{base}/events/app/hello", data=b"{}", method="POST"))
assert answer.status == 202, answer.status
assert json.load(answer)["jobs_created"] == 0
container.send_signal(signal.SIGTERM)
assert container.wait(20) == 0, "it ends in good order"
print("it took an event in, and ended in good order")
