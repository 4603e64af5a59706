"""A small OpenAI server for the fault tests: it streams `t0 t1 t2 …`, one token every PACE seconds.

With `--as vllm` it says that it is vLLM, and continues a trailing assistant message when
`continue_final_message` asks for it; otherwise it says nothing about itself.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PACE = 0.05
VLLM = "vllm" in sys.argv


def words(messages):
    return sum(len(message["content"].split()) for message in messages)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/v1/models":
            self.reply(200, {"data": [{"id": "m", "owned_by": "vllm" if VLLM else "nobody"}]})
        elif path == "/health":
            self.reply(200, {})
        elif path == "/version" and VLLM:
            self.reply(200, {"version": "0.11.0"})
        else:
            self.reply(404, {"error": {"message": "no such path", "type": "not_found", "code": None}})

    def event(self, value):
        data = value if isinstance(value, str) else json.dumps(value)
        line = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def chunk(self, choices, **more):
        self.event({"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": choices, **more})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = body["messages"]
        begun = 0
        if messages[-1]["role"] == "assistant" and VLLM and body.get("continue_final_message"):
            begun = len(messages[-1]["content"].split())
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        tokens = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        due = time.monotonic()
        self.chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for number in range(begun, begun + tokens):
            due += PACE
            time.sleep(max(0.0, due - time.monotonic()))
            self.chunk([{"index": 0, "delta": {"content": f"t{number} "}, "finish_reason": None}])
        self.chunk([{"index": 0, "delta": {}, "finish_reason": "length"}])
        prompt = words(messages)
        self.chunk([], usage={"prompt_tokens": prompt, "completion_tokens": tokens,
                              "total_tokens": prompt + tokens})
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Server((os.environ["HOST"], int(sys.argv[1])), Handler).serve_forever()
