"""Stands in for AWS's Parameters and Secrets extension beside emulated functions: asks the emulator's own services.

extension.py PORT; AWS_ENDPOINT_URL names the emulator.
"""
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import boto3
from botocore.exceptions import ClientError

endpoint = os.environ["AWS_ENDPOINT_URL"]
secrets, parameters = (boto3.client(name, endpoint_url=endpoint) for name in ("secretsmanager", "ssm"))


class Extension(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urlparse(self.path)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        try:
            if "X-Aws-Parameters-Secrets-Token" not in self.headers:
                status, answer = 400, {"message": "no token"}
            elif asked.path == "/secretsmanager/get":
                status, answer = 200, {"SecretString": secrets.get_secret_value(SecretId=query["secretId"])["SecretString"]}
            else:
                found = parameters.get_parameter(Name=query["name"], WithDecryption=True)
                status, answer = 200, {"Parameter": {"Value": found["Parameter"]["Value"]}}
        except ClientError as why:
            status, answer = 400, {"message": str(why)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Extension).serve_forever()
