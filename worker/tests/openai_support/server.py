"""A tiny OpenAI server for tests of the supervisor: it tells its process id as its answer."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        models = {"data": [{"id": "m", "owned_by": "vllm"}]}
        self.reply("application/json", json.dumps(models).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "delta": {"content": str(os.getpid())}, "finish_reason": "stop"}
        event = json.dumps({"choices": [choice]})
        self.reply("text/event-stream", f"data: {event}\n\ndata: [DONE]\n\n".encode())


if "--fail" in sys.argv:
    print("the model is broken", file=sys.stderr, flush=True)
    sys.exit(3)
time.sleep(0.2)  # Loading; the port refuses until then.
ThreadingHTTPServer((os.environ["HOST"], int(sys.argv[1])), Handler).serve_forever()
