"""Asks the turns of conversations through the gateways, and notes what came back."""

import http.client
import json
import threading
import time

from harness.processes import Failed

MODEL = "smol"
# Time limit of one answer, seconds: a prompt takes some seconds to read.
PATIENCE = 120


class Asker:
    """A number of clients that take turns from one list, in its order."""

    def __init__(self, ports, conversations, order, salted, answer_tokens):
        self.ports = ports
        self.conversations = conversations
        self.order = order
        # Where each request has a salt of its own, gateways and workers see no two prompts with a common beginning.
        # llama.cpp does not know the member, and uses what it has cached.
        self.salted = salted
        self.answer_tokens = answer_tokens
        self.messages = {one.number: [{"role": "system", "content": one.system}] for one in conversations}
        self.turns = dict.fromkeys(self.messages, 0)
        self.free = {number: threading.Event() for number in self.messages}
        for event in self.free.values():
            event.set()
        self.lock = threading.Lock()
        self.at = 0
        self.records = []
        self.error = None

    def run(self, clients):
        """All turns; their records, in the order in which they were sent."""
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.error:
            raise Failed(f"a request failed: {self.error}")
        return sorted(self.records, key=lambda record: record["began"])

    def work(self):
        """One client: turn after turn until none is left."""
        try:
            while True:
                with self.lock:
                    if self.at == len(self.order) or self.error:
                        return
                    place, self.at = self.at, self.at + 1
                number = self.order[place]
                # Its last answer may still be on its way.
                if not self.free[number].wait(PATIENCE):
                    raise Failed(f"conversation {number} has no answer for {PATIENCE} s")
                self.free[number].clear()
                self.records.append(self.turn(number, place))
                self.free[number].set()
        except (OSError, ValueError, KeyError, Failed, http.client.HTTPException) as error:
            self.error = self.error or error

    def turn(self, number, place):
        """One turn of a conversation."""
        messages = self.messages[number]
        turn, self.turns[number] = self.turns[number], self.turns[number] + 1
        messages.append({"role": "user", "content": self.conversations[number].says[turn]})
        body = {"model": MODEL, "messages": messages, "max_tokens": self.answer_tokens, "temperature": 0}
        if self.salted:
            body["cache_salt"] = f"{number}/{turn}"
        # Each turn of a conversation comes through another gateway than the last one.
        gateway = (number + turn) % len(self.ports)
        record = ask(self.ports[gateway], body)
        record |= {"conversation": number, "turn": turn, "place": place, "gateway": gateway, "messages": list(messages)}
        messages.append({"role": "assistant", "content": record["text"]})
        return record


def ask(port, body):
    """A streamed chat: when it began, its first token and its end, who answered, and its usage. Raises where the answer is
    not complete."""
    body = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    began = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json", "x-tokenbus-explain": "1"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise Failed(f"status {answer.status}: {answer.read(500)}")
    text, first, finish, usage, done = [], None, None, None, False
    for line in answer:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            done = True
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise Failed(f"an error in the stream: {event['error']}")
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            content = choice.get("delta", {}).get("content")
            if content:
                first = first or time.monotonic()
                text.append(content)
            finish = choice.get("finish_reason") or finish
    ended = time.monotonic()
    connection.close()
    if not (done and usage and first and finish in ("stop", "length")):
        raise Failed(f"an answer is not complete: finish {finish}, usage {usage}, [DONE] {done}, text {text}")
    return {
        "began": began,
        "ttft": first - began,
        "ended": ended,
        "text": "".join(text),
        "worker": answer.headers.get("x-tokenbus-worker"),
        "decision": answer.headers.get("x-tokenbus-decision") or "queue",
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "cached": (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
    }


def tokens(port, messages):
    """The tokens of a chat, by the engine's own template and tokenizer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/tokenize", json.dumps({"model": MODEL, "messages": messages}), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise Failed(f"/tokenize: status {answer.status}: {text[:500]}")
    return json.loads(text)["tokens"]
