"""The libraries of Node, in one process that answers calls."""

import json
import os
import subprocess


class Node:
    """Runs `node.mjs`: a line of JSON for each list of calls, a line of JSON for their results."""

    def __init__(self, packages):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node.mjs")
        command = ["node", script, os.path.abspath(packages)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    def map(self, name, arguments):
        """The results of a function for a list of argument lists, in their order. Raises what it throws."""
        self.process.stdin.write(json.dumps({"name": name, "arguments": list(map(list, arguments))}).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "node ended"}')
        if "error" in answer:
            raise RuntimeError(f"{name}: {answer['error']}")
        return answer["results"]

    def call(self, name, *arguments):
        """The result of one call."""
        return self.map(name, [arguments])[0]
