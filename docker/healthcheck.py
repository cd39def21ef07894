"""Exit code 0 if the server in this container can generate. Docker runs it every few seconds, so it imports little."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("ZEROSHOT_PORT", "8000")), timeout=4)
connection.request("GET", "/health/ready")
sys.exit(connection.getresponse().status != 200)
