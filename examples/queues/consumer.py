"""A consumer of a pull queue: receives messages, works on each, and acknowledges it.

    TIDEHOOK_URL=http://localhost:8888 QUEUE=jobs QUEUE_KEY=… python3 consumer.py

It ends after `MESSAGES` messages if that is set. Standard library only.
"""
import json
import os
import sys
import time
import urllib.error
import urllib.request

BASE = os.environ.get("TIDEHOOK_URL", "http://localhost:8888")
QUEUE = os.environ.get("QUEUE", "jobs")
KEY = os.environ.get("QUEUE_KEY", "")
LIMIT = int(os.environ.get("MESSAGES", "0"))


def call(method, path, body=None):
    request = urllib.request.Request(f"{BASE}/api/queues/{QUEUE}{path}", method=method)
    request.add_header("Authorization", f"Bearer {KEY}")
    data = None
    if body is not None:
        request.add_header("Content-Type", "application/json")
        data = json.dumps(body).encode()
    # Longer than the longest wait of a receive.
    with urllib.request.urlopen(request, data, timeout=40) as response:
        return json.load(response)


def work(message):
    """Replace this. An exception gives the message back."""
    if message["payload"] == {"fail": True}:
        raise ValueError("the payload asks for a failure")
    print(f"{message['event_type']} {json.dumps(message['payload'])}", flush=True)


def main():
    seen = 0
    while not LIMIT or seen < LIMIT:
        try:
            messages = call("GET", "/messages?wait=20s&batch=10")["messages"]
        except (urllib.error.URLError, OSError) as why:
            if isinstance(why, urllib.error.HTTPError) and why.code in (401, 404):
                sys.exit(f"{QUEUE}: {why}")
            # The server restarts, or is busy: what was published meanwhile waits.
            time.sleep(1)
            continue
        for message in messages:
            seen += 1
            try:
                work(message)
            except Exception as why:
                back = {"receipts": [message["receipt"]], "delay": "1s", "reason": str(why)}
                call("POST", "/nack", back)
            else:
                call("POST", "/ack", {"receipts": [message["receipt"]]})


if __name__ == "__main__":
    main()
