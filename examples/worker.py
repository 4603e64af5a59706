"""A tokenbus worker, written from docs/protocol.md. It needs Python 3.11 or newer, nats-py and msgpack.

It answers chat completions with what `generate` yields. Put your engine there."""
import argparse, asyncio, json, random, re, signal, socket, sys, time
import msgpack, nats


async def generate(chat, text):
    """Yields the pieces of the answer that come after `text`, which the client has already. This engine counts."""
    if chat.get("n") not in (None, 1):
        raise ValueError("this engine gives one choice")
    for number in range(len(text.split()), chat.get("max_completion_tokens") or chat.get("max_tokens") or 16):
        await asyncio.sleep(args.pause)
        yield f"t{number} "


class Worker:
    def __init__(self):
        self.id, self.instance, self.started = args.id, random.getrandbits(63), int(time.time() * 1000)
        self.state, self.seq, self.requests, self.leave = "starting", 0, [], asyncio.Event()
        self.runs, self.ended, self.cancelled = {}, {}, {}  # requests by id; newest attempts by id
        self.room = lambda: {"f": max(0, args.slots - len(self.runs))}
        token = re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"=%02X" % byte[0][0], args.model.encode()).decode()
        self.at, self.queue = f"{args.namespace}.v1", f"{args.namespace}.v1.req.{token}"

    async def send(self, subject, message):
        await self.nats.publish(subject, b"\x01" + msgpack.packb(message))

    async def frame(self, run, body):
        frame = {"s": run["stream"], "a": run["attempt"], "q": run.setdefault("next", 0), "b": body}
        run["next"] += 1
        await self.send(f"{self.at}.out.{run['gateway']}.{self.id}", [frame, {"s": 0, "b": {"m": self.room()}}])

    async def held(self, *gateways):
        """Which streams of a gateway run here: it shows what was lost. Sent when asked, and after a reconnect."""
        for gateway in gateways or {run["gateway"] for run in self.runs.values()}:
            runs = [run for run in self.runs.values() if run["gateway"] == gateway]
            streams = [{"s": run["stream"], "a": run["attempt"], "q": run.get("next", 0)} for run in runs]
            frame = {"s": 0, "b": {"h": {"i": self.instance, "s": streams}}}
            await self.send(f"{self.at}.out.{gateway}.{self.id}", [frame])

    async def status(self, state):
        self.state, self.seq = state, self.seq + 1
        await self.send(f"{self.at}.status.{self.id}", {
            "worker": self.id, "instance": self.instance, "seq": self.seq, "state": state, "version": "0", "queued": 0,
            "models": [{"name": args.model, "capabilities": {"chat": True, "continuation": True}}], "slots": args.slots,
            "host": socket.gethostname(), "engine": "python", "started_at_ms": self.started, "active": len(self.runs)})

    async def on_request(self, message):
        run = msgpack.unpackb(message.data[1:])
        key, older = run["id"], self.runs.get(run["id"])
        if (older["attempt"] if older else self.ended.get(key, -1)) >= run.get("floor", 0):
            reason = "duplicate"
        elif self.cancelled.get(key, -1) >= run["attempt"]:
            return  # The cancel was faster than the request.
        else:
            if older:
                self.end(key)  # Its gateway has given it up.
            able = run["kind"] == "chat" and not run.get("parts")
            reason = "draining" if self.state != "ready" else None if able else "unsupported"
            reason = reason or (None if self.room()["f"] else "busy")
        if reason:
            return await self.frame(run, {"r": {"r": reason, "w": self.id, "m": self.room(), "u": key}})
        self.runs[key], run["task"] = run, asyncio.create_task(self.run(key, run))

    async def run(self, key, run):
        try:
            await self.frame(run, {"a": {"u": key, "w": self.id, "i": self.instance, "r": True}})
            chat, tokens, given = json.loads(run["body"]), 0, (run.get("resume") or {}).get("choices")
            async with asyncio.timeout(run["budget_ms"] / 1000):
                async for piece in generate(chat, given[0]["text"] if given else ""):
                    tokens += 1
                    await self.frame(run, {"d": {"t": piece, "n": 1}})
            await self.frame(run, {"d": {"f": "length"}})
            last = {"f": {"p": sum(len(str(each.get("content")).split()) for each in chat["messages"]), "n": tokens}}
        except Exception as error:
            code = {TimeoutError: "timeout", ValueError: "bad_request"}.get(type(error), "internal")
            last = {"e": {"c": code, "t": str(error) or code, "r": code == "internal"}}
        self.end(key)
        await self.frame(run, last)
        await self.status(self.state)

    def end(self, key):
        run = self.runs.pop(key)
        self.ended[key] = run["attempt"]  # Published again, it is a duplicate.
        if run["task"] is not asyncio.current_task():
            run["task"].cancel()

    async def on_control(self, message):
        [(kind, body)], answer = msgpack.unpackb(message.data[1:]).items(), {"done": {}}
        if kind in ("cancel", "disown"):
            names, self.cancelled[body.get("id")] = body.keys() - {"attempt"}, body["attempt"]
            meant = lambda run: run["attempt"] <= body["attempt"] and all(run[name] == body[name] for name in names)
            [self.end(key) for key, run in [*self.runs.items()] if meant(run)]
            await self.status(self.state)
        elif kind == "ping":
            answer = {"pong": {"worker": self.id, "instance": self.instance, "state": self.state, "room": self.room()}}
        elif kind == "roll_call":
            await self.held(body["gateway"])
        elif kind == "drain":
            asyncio.create_task(self.drain(body.get("grace_ms", args.grace * 1000) / 1000))
        elif kind == "undrain" and not self.leave.is_set():
            await self.listen()
        elif kind == "claim":  # Of two workers with one id, the one that started later stays.
            if (body["started_at_ms"], body["instance"]) > (self.started, self.instance):
                self.leave.set()
        else:
            answer = {"refused": {"message": f"{kind} is not for this worker"}}
        if message.reply.startswith(("_INBOX.", f"{self.at}.out.")):
            await self.send(message.reply, answer)

    async def listen(self):
        self.requests = self.requests or [await self.nats.subscribe(self.queue, "workers", self.on_request),
                                          await self.nats.subscribe(f"{self.queue}.{self.id}", cb=self.on_request)]
        await self.nats.flush()  # NATS knows the subscriptions before anybody knows the worker.
        await self.status("ready")

    async def drain(self, grace):
        await self.status("draining")
        until, requests, self.requests = time.monotonic() + grace, self.requests, []
        [await subscription.unsubscribe() for subscription in requests]
        while self.runs and self.state == "draining" and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for key, run in [*self.runs.items()] if self.state == "draining" else []:
            self.end(key)
            await self.frame(run, {"e": {"c": "draining", "t": "the worker stops", "r": True}})

    async def serve(self):
        self.nats = await nats.connect(args.nats, max_reconnect_attempts=-1, reconnected_cb=self.held)
        await self.nats.subscribe(f"{self.at}.ctl.{self.id}", cb=self.on_control)
        await self.listen()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.leave.set)
        print("worker ready", file=sys.stderr)
        leaving = asyncio.create_task(self.leave.wait())
        while not leaving.done():
            await self.status(self.state)
            [await self.frame(run, {"l": {}}) for run in [*self.runs.values()]]  # Each of them lives.
            [memory.pop(key) for memory in (self.ended, self.cancelled) for key in [*memory][:-10_000]]
            await asyncio.wait([leaving], timeout=1)
        await self.drain(args.grace)
        await self.status("stopped")
        await self.nats.drain()


parser = argparse.ArgumentParser()
for name, default in (("nats", "nats://127.0.0.1:4222"), ("namespace", "tb"), ("id", f"py-{random.getrandbits(32):x}"),
                      ("model", "counter"), ("slots", 4), ("grace", 30.0), ("pause", 0.02)):
    parser.add_argument(f"--{name}", default=default, type=type(default))
args = parser.parse_args()
asyncio.run(Worker().serve())
