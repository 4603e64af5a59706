"""How OpenAI's own client takes failures, and what it does by itself: python openai_failures.py BASE_URL

The gateway lets nobody wait and takes bodies up to 64 KiB. The simulated engine serves `sim`, and `slow` with one slot,
whose tokens take 50 ms each.
"""

import asyncio
import sys
import time

import openai
from pydantic import BaseModel

URL = sys.argv[1]
HELLO = [{"role": "user", "content": "Hello?"}]


class City(BaseModel):
    name: str


def client(retries=0, **options):
    return openai.OpenAI(base_url=URL, api_key="unused", max_retries=retries, **options)


def chat(sim=None, to=None, **body):
    body = {"model": "sim", "messages": HELLO, **body}
    return (to or client()).chat.completions.create(extra_body={"sim": sim or {}}, **body)


def refusal(ask):
    try:
        answer = ask()
    except openai.APIStatusError as error:
        return error
    raise AssertionError(f"it was answered: {answer}")


def classes():
    script = lambda code: (lambda: chat({"error_after": 0, "error_code": code, "always": True}))
    for kind, status, code, ask in [
        (openai.BadRequestError, 400, "bad_request", script("bad_request")),
        (openai.BadRequestError, 400, "context_length_exceeded", script("context_length_exceeded")),
        (openai.BadRequestError, 400, "content_filter", script("content_filter")),
        (openai.AuthenticationError, 401, "upstream_unauthorized", script("upstream_unauthorized")),
        (openai.PermissionDeniedError, 403, "upstream_forbidden", script("upstream_forbidden")),
        (openai.NotFoundError, 404, "model_not_found", lambda: chat(model="nobody")),
        (openai.APIStatusError, 413, "request_too_large", lambda: chat(user="x" * 70_000)),
        (openai.RateLimitError, 429, "rate_limit_exceeded", script("rate_limited")),
        (openai.InternalServerError, 500, "engine_error", script("internal")),
        (openai.InternalServerError, 504, "engine_timeout", script("timeout")),
        (openai.BadRequestError, 400, "invalid_type", lambda: chat(temperature="hot")),
        (openai.BadRequestError, 400, "unsupported_feature", lambda: client().embeddings.create(model="slow", input="a")),
        (openai.NotFoundError, 404, "unknown_url", lambda: client().files.list()),
    ]:
        error = refusal(ask)
        assert isinstance(error, kind) and (error.status_code, error.code) == (status, code), (kind, code, error)
        assert error.request_id and error.message and error.type, error.body


def mid_stream():
    text = ""
    try:
        for chunk in chat({"error_after": 2, "error_code": "internal", "always": True}, stream=True):
            text += chunk.choices[0].delta.content or ""
        raise AssertionError("it ended as if it were whole")
    except openai.APIError as error:
        assert text == "t0 t1 " and error.code == "engine_error", (text, error)


def cut_short():
    try:
        client().chat.completions.parse(model="sim", messages=HELLO, response_format=City, max_tokens=1)
        raise AssertionError("it was parsed")
    except openai.LengthFinishReasonError as error:
        assert error.completion.choices[0].finish_reason == "length", error


def retries():
    # The answer's Retry-After is longer than the client's own pause before its first retry, which is below 1 s.
    began = time.monotonic()
    script = {"error_after": 0, "error_code": "rate_limited", "retry_after_ms": 2000, "always": True}
    assert isinstance(refusal(lambda: chat(script, client(retries=1))), openai.RateLimitError)
    assert time.monotonic() - began >= 2
    # A request whose time is over is not tried again: that would be three times 1 s.
    began = time.monotonic()
    hang = client(retries=2, default_headers={"x-request-timeout": "1"})
    assert refusal(lambda: chat({"hang_after": 0, "always": True}, hang)).code == "deadline_exceeded"
    assert time.monotonic() - began < 3


def busy():
    # The one slot is taken for 3 s: a 429 that passes, and a client that waits for it without being told.
    with chat(model="slow", max_tokens=60, stream=True) as first:
        next(iter(first))
        error = refusal(lambda: chat(model="slow", max_tokens=1))
        assert error.code == "server_busy" and int(error.response.headers["retry-after"]) >= 1, error
        answer = chat(model="slow", max_tokens=1, to=client(retries=9))
        assert answer.choices[0].message.content == "t0 ", answer


def time_out():
    try:
        chat({"hang_after": 1, "always": True}, client(timeout=0.5))
        raise AssertionError("it was answered")
    except openai.APITimeoutError:
        pass


async def asynchronously():
    here = openai.AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0)

    async def one(count):
        text = ""
        # The client takes a whole answer that was cut short for a failure.
        ask = dict(model="sim", messages=HELLO, max_tokens=count, extra_body={"sim": {"finish_reason": "stop"}})
        async with here.chat.completions.stream(**ask) as stream:
            async for event in stream:
                text += event.delta if event.type == "content.delta" else ""
            final = await stream.get_final_completion()
        assert text == final.choices[0].message.content == "".join(f"t{n} " for n in range(count)), final

    await asyncio.gather(*(one(count) for count in range(1, 9)))
    parsed = await here.chat.completions.parse(model="sim", messages=HELLO, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="t0"), parsed
    try:
        await here.chat.completions.create(model="nobody", messages=HELLO)
        raise AssertionError("it was answered")
    except openai.NotFoundError:
        pass


for test in (classes, mid_stream, cut_short, retries, busy, time_out):
    test()
    print("passed:", test.__name__, flush=True)
asyncio.run(asynchronously())
print("passed: asynchronously")
