"""What is checked on a real vLLM: each check has the bed, and returns a sentence for the table or raises `Wrong`."""

import json
import signal
import threading
import time

from bed import MODEL, Bed, ask, get, until

STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse, a storm and a cat."}]
TOKENS = 120
SCHEMA = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 12}},
    "required": ["names"],
    "additionalProperties": False,
}
CHAT = "/v1/chat/completions"

# Each form of the kill matrix: its path and its members. Several choices have a seed, because vLLM refuses them at
# temperature 0.
FORMS = {
    "plain": (CHAT, {"messages": STORY}),
    "logprobs": (CHAT, {"messages": STORY, "logprobs": True, "top_logprobs": 2}),
    "stop strings": (CHAT, {"messages": STORY, "stop": ["never comes here", "nor this"]}),
    "seed": (CHAT, {"messages": STORY, "seed": 7, "temperature": 0.8}),
    "two choices with a seed": (CHAT, {"messages": STORY, "n": 2, "seed": 7, "temperature": 0.8}),
    "completion": ("/v1/completions", {"prompt": "The lighthouse stood on the rock, and"}),
    "completion of token ids": ("/v1/completions", {"prompt": [504, 44566, 7264, 335, 260, 7093, 28, 284]}),
    "schema": (
        CHAT,
        {
            "messages": [{"role": "user", "content": "Twelve names as JSON."}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "names", "schema": SCHEMA}},
        },
    ),
}


class Wrong(Exception):
    """A check failed; the text says how."""


def demand(truth: object, text: str) -> None:
    """Raises `Wrong` unless it is true."""
    if not truth:
        raise Wrong(text)


def body(members: dict, **more) -> dict:
    """A streamed request at temperature 0 with usage."""
    base = {"model": MODEL, "temperature": 0, "max_tokens": TOKENS, "stream": True}
    return base | {"stream_options": {"include_usage": True}} | members | more


def difference(want: str, have: str) -> str:
    """Where two texts part."""
    at = next((n for n, (a, b) in enumerate(zip(want, have)) if a != b), min(len(want), len(have)))
    return f"at character {at}: wanted {want[at - 10 : at + 25]!r}, got {have[at - 10 : at + 25]!r}"


def kill(bed: Bed, form: str) -> str:
    """Kills the worker in the middle of an answer; the answer's text and usage must be those of an unbroken one."""
    path, members = FORMS[form]
    direct = ask(bed.engine_ports[0], path, body(members))
    demand(direct.status == 200, f"vLLM itself answers {direct.status}: {direct.error}")
    bed.worker("first", 0)

    def strike(events: int) -> None:
        if events == 12:
            bed.worker("second", 1, wait=False)
        if events == 24:
            bed.workers["first"].kill()

    moved = ask(bed.gateway, path, body(members), strike)
    demand(moved.error is None and moved.done, f"broken off: {moved.error}")
    for index in range(members.get("n", 1)):
        want, have = direct.choice(index), moved.choice(index)
        demand(want["text"] == have["text"], difference(want["text"], have["text"]))
        demand(want["reason"] == have["reason"], f"{have['reason']} instead of {want['reason']}")
        demand(want["logprobs"] == have["logprobs"], f"{have['logprobs']} log probabilities, not {want['logprobs']}")
    demand(direct.usage == moved.usage, f"usage {moved.usage}, not {direct.usage}")
    return f"text equal, usage equal ({moved.usage.get('completion_tokens')} tokens)"


def lost_run(bed: Bed, strike, limit: float, undo) -> str:
    """Hurts engine 0 in the middle of an answer; the other worker must take it over within `limit` seconds."""
    direct = ask(bed.engine_ports[1], CHAT, body({"messages": STORY}))
    bed.worker("first", 0)
    struck = [0.0]
    gaps = [0.0]
    last = [time.monotonic()]

    def on_event(events: int) -> None:
        now = time.monotonic()
        gaps.append(now - last[0])
        last[0] = now
        if events == 12:
            bed.worker("second", 1, wait=False)
        if events == 24:
            strike()
            struck[0] = last[0] = time.monotonic()

    try:
        moved = ask(bed.gateway, CHAT, body({"messages": STORY}), on_event)
    finally:
        undo()
    demand(moved.error is None and moved.done, f"broken off: {moved.error}")
    have, want = moved.choice()["text"], direct.choice()["text"]
    demand(have == want, difference(want, have))
    demand(moved.usage == direct.usage, f"usage {moved.usage}, not {direct.usage}")
    demand(max(gaps) < limit, f"moved after {max(gaps):.1f} s")
    return f"moved after {max(gaps):.1f} s, text and usage equal"


def pause_abort(bed: Bed) -> str:
    """`/pause?mode=abort` ends running requests with `finish_reason: "abort"`."""

    def control(path: str) -> None:
        ask(bed.engine_ports[0], path, {})

    return lost_run(bed, lambda: control("/pause?mode=abort"), 20, lambda: control("/resume"))


def frozen_core(bed: Bed) -> str:
    """SIGSTOP of vLLM's engine core: its HTTP server goes on and says that it is healthy."""
    cores = bed.descendants(0, "EngineCore")
    demand(cores, "no process of the engine core was found")

    def send(number: int) -> None:
        for core in cores:
            core.send_signal(number)

    return lost_run(bed, lambda: send(signal.SIGSTOP), 45, lambda: send(signal.SIGCONT))


def cancel(bed: Bed) -> str:
    """A client that leaves ends the generation at the engine within seconds."""
    bed.worker("first", 0)
    ask(bed.gateway, CHAT, body({"messages": STORY}, max_tokens=1500), lambda events: events < 10)
    began = time.monotonic()
    running = lambda: "vllm:num_requests_running" in (page := get(bed.engine_ports[0], "/metrics")[1]) and all(
        line.endswith(" 0.0") for line in page.splitlines() if line.startswith("vllm:num_requests_running{")
    )
    until("the engine to stop", running, 10)
    return f"nothing runs {time.monotonic() - began:.1f} s after the client left"


def crowd(bed: Bed, count: int, tokens: int) -> list:
    """Sends requests at the same time and returns their answers."""
    answers = [None] * count

    def one(number: int) -> None:
        request = body({"messages": [{"role": "user", "content": f"Count from {number} upwards."}]}, max_tokens=tokens)
        answers[number] = ask(bed.gateway, CHAT, request)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def counting(bed: Bed) -> str:
    """Under load vLLM joins several tokens in a chunk; each answer's usage is still its own."""
    bed.worker("first", 0)
    answers = crowd(bed, 6, 64)
    for answer in answers:
        demand(answer.done and answer.error is None, f"broken off: {answer.error}")
        demand(answer.choice()["reason"] in ("length", "stop"), f"{answer.choice()['reason']}")
        if answer.choice()["reason"] == "length":
            demand(answer.usage["completion_tokens"] == 64, f"{answer.usage}")
    return "6 streams, usage right"


def queueing(bed: Bed) -> str:
    """More requests than the engine's 8 slots: all are answered, and the worker does not overfill the engine."""
    bed.worker("first", 0)
    answers = crowd(bed, 24, 16)
    bad = [answer.error or answer.status for answer in answers if not answer.done]
    demand(not bad, f"{len(bad)} of 24 failed, as {bad[:1]}")
    worker = bed.status()["workers"][0]
    return f"24 of 24 answered; slots {worker.get('slots')}"


def tools(bed: Bed) -> str:
    """An offered tool is accepted, streamed and not; a demanded one is called with arguments that are JSON."""
    bed.worker("first", 0)
    function = {"name": "look", "description": "Looks at a place.", "parameters": {
        "type": "object", "properties": {"place": {"type": "string", "maxLength": 8}}, "required": ["place"],
        "additionalProperties": False,
    }}  # fmt: skip
    offered = {"messages": STORY, "tools": [{"type": "function", "function": function}]}
    for members in (offered, offered | {"tool_choice": {"type": "function", "function": {"name": "look"}}}):
        whole = ask(bed.gateway, CHAT, body(members, stream=False, stream_options=None))
        demand(whole.status == 200, f"{whole.status} {whole.error}")
        streamed = ask(bed.gateway, CHAT, body(members))
        demand(streamed.status == 200 and streamed.done, f"{streamed.status} {streamed.error}")
    direct = ask(bed.engine_ports[0], CHAT, body(members, stream=False, stream_options=None))
    calls = [one["function"] for one in whole.choice()["calls"]]
    demand(calls and calls == [one["function"] for one in direct.choice()["calls"]], f"{calls}, not vLLM's own call")
    json.loads(calls[0]["arguments"])
    return f"called with {calls[0]['arguments']}, as vLLM does"


def schema_errors(bed: Bed) -> str:
    """A schema that the engine cannot compile is an error of the request, and harms nobody else."""
    bed.worker("first", 0)
    statuses = []
    for schema in ({"type": "array", "minItems": 1000000}, {"$ref": "#/nowhere"}):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        members = body({"messages": STORY, "response_format": form}, max_tokens=8)
        answer, direct = ask(bed.gateway, CHAT, members), ask(bed.engine_ports[0], CHAT, members)
        told = [f"{one.status} {(one.error or {}).get('message', 'no error')!r:.60}" for one in (answer, direct)]
        statuses.append(f"{told[0]} (vLLM {told[1]})")
        demand((answer.error is None) == (direct.error is None), f"{told[0]} where vLLM has {told[1]}")
    demand(ask(bed.gateway, CHAT, body({"messages": STORY}, max_tokens=8)).done, "nothing is served afterwards")
    return ", ".join(statuses)


def two_greedy_choices(bed: Bed) -> str:
    """vLLM refuses several choices at temperature 0; its client gets that refusal."""
    bed.worker("first", 0)
    members = body({"messages": STORY, "n": 2}, max_tokens=4)
    answer, direct = ask(bed.gateway, CHAT, members), ask(bed.engine_ports[0], CHAT, members)
    demand(direct.status == 400, f"vLLM itself answers {direct.status}")
    demand(answer.status == 400 and answer.error, f"{answer.status} {answer.error}")
    demand(answer.error["message"] == direct.error["message"], f"{answer.error}, not {direct.error}")
    return "vLLM's own refusal (400)"


def prompt_logprobs(bed: Bed) -> str:
    """vLLM refuses `prompt_logprobs` in a stream; a client that does not stream gets them."""
    bed.worker("first", 0)
    members = body({"messages": STORY, "prompt_logprobs": 1}, stream=False, stream_options=None, max_tokens=4)
    answer, direct = ask(bed.gateway, CHAT, members), ask(bed.engine_ports[0], CHAT, members)
    demand(direct.status == 200, f"vLLM itself answers {direct.status}")
    demand(answer.status == 200, f"{answer.status} {answer.error}")
    have, want = answer.document.get("prompt_logprobs"), direct.document.get("prompt_logprobs")
    demand(have is not None and len(have) == len(want), "prompt_logprobs are missing")
    return f"{len(have)} of them, as vLLM has them"


def members(bed: Bed) -> str:
    """A plain answer has the members that vLLM's own has, streamed and not."""
    bed.worker("first", 0)
    told = []
    for stream in (False, True):
        request = body({"messages": STORY}, max_tokens=8, stream=stream)
        if not stream:
            del request["stream_options"]
        ours, theirs = ask(bed.gateway, CHAT, request), ask(bed.engine_ports[0], CHAT, request)
        keys = lambda answer: {key for one in ([answer.document] if answer.document else answer.events) for key in one}
        new = keys(ours) - keys(theirs)
        demand(not new, f"new members: {sorted(new)}")
        told.append(f"without {sorted(keys(theirs) - keys(ours))}")
    return "; ".join(told)


def slots(bed: Bed) -> str:
    """The slots that the worker tells are those of `--max-num-seqs 8`."""
    bed.worker("first", 0)
    crowd(bed, 12, 48)
    found = bed.status()["workers"][0].get("slots")
    demand(found == 8, f"{found} instead of 8")
    return "8"


CHECKS = {f"kill: {form}": (lambda bed, form=form: kill(bed, form)) for form in FORMS} | {
    "abort by the engine": pause_abort,
    "frozen engine core": frozen_core,
    "cancel": cancel,
    "counting under load": counting,
    "queueing": queueing,
    "tools": tools,
    "schema errors": schema_errors,
    "two choices at temperature 0": two_greedy_choices,
    "prompt_logprobs": prompt_logprobs,
    "members": members,
    "slots": slots,
}
