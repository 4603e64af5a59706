"""Anthropic's own Python client against /v1/messages: python anthropic_messages.py BASE_URL

A gateway in front of a simulated engine that serves the model `sim`. Every answer and event is also read with
the types of the package in strict mode.
"""

import asyncio
import sys
import time

import anthropic
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

URL = sys.argv[1]
EVENT = TypeAdapter(RawMessageStreamEvent)
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HI = [{"role": "user", "content": "hi"}]


class City(BaseModel):
    name: str
    inhabitants: int


def client(**options):
    return anthropic.Anthropic(base_url=URL, api_key="unused", max_retries=0, **options)


def strict(message):
    Message.model_validate_json(message.model_dump_json(exclude_unset=True), strict=True)
    return message


def words(count):
    return "".join(f"t{number} " for number in range(count))


def one_piece():
    ask = [{"role": "user", "content": [{"type": "text", "text": "one two"}]}]
    message = strict(client().messages.create(model="sim", max_tokens=4, messages=ask, system="three"))
    assert message.content[0].text == words(4) and message.stop_reason == "max_tokens", message
    assert message.usage.input_tokens == 3 and message.usage.output_tokens == 4
    assert message.id.startswith("msg_") and message._request_id


def streamed():
    names, text = [], ""
    with client().messages.create(model="sim", max_tokens=5, messages=HI, stream=True) as stream:
        for event in stream:
            EVENT.validate_json(event.model_dump_json(exclude_unset=True), strict=True)
            names.append(event.type)
            if event.type == "content_block_delta":
                text += event.delta.text
    assert text == words(5), text
    assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"], names


def stream_helper():
    sim = {"sim": {"finish_reason": "stop", "reasoning": "because"}}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    arguments = dict(model="sim", max_tokens=3, messages=HI, thinking=thinking, extra_body=sim)
    with client().messages.stream(**arguments) as stream:
        assert "".join(stream.text_stream) == words(3)
        message = strict(stream.get_final_message())
    assert [block.type for block in message.content] == ["thinking", "text"], message
    assert message.content[0].thinking == "because" and message.content[0].signature
    assert message.stop_reason == "end_turn" and message.usage.input_tokens == 1
    # What came back goes back as it is.
    more = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": "and?"}]
    strict(client().messages.create(model="sim", max_tokens=3, messages=more))


def tools():
    ask = [{"role": "user", "content": "How is the weather in Zurich?"}]
    arguments = dict(model="sim", max_tokens=99, tools=[WEATHER])
    first = strict(client().messages.create(messages=ask, **arguments))
    call = first.content[0]
    assert call.type == "tool_use" and call.name == "weather" and "city" in call.input, first
    assert first.stop_reason == "tool_use"
    with client().messages.stream(messages=ask, **arguments) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        assert stream.get_final_message().content[0].input == call.input and pieces
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    answer = [*ask, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = strict(client().messages.create(messages=answer, **arguments))
    assert second.content[0].text.startswith("t0 ") and second.stop_reason != "tool_use", second


def structured():
    # Its way to structured output asks for it as OpenAI's does.
    ask = [{"role": "user", "content": "A city named 'Bern' of 134591?"}]
    parsed = client().messages.parse(model="sim", max_tokens=99, messages=ask, output_format=City)
    assert parsed.parsed_output == City(name="Bern", inhabitants=134591), parsed


def tool_runner():
    asked = []

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Tells the weather."""
        asked.append(city)
        return "sunny"

    ask = [{"role": "user", "content": "How is the weather in 'Zürich'?"}]
    runner = client().beta.messages.tool_runner(model="sim", max_tokens=99, messages=ask, tools=[weather])
    last = runner.until_done()
    assert asked == ["Zürich"] and last.content[0].text.startswith("t0 t1 "), (asked, last)


def more_forms():
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    cached = {"type": "text", "text": "one two", "cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "three", "cache_control": {"type": "ephemeral"}}]
    ask = dict(model="sim", max_tokens=2, stop_sequences=["x"], metadata={"user_id": "u"}, extra_body={"top_k": 5})
    message = client().messages.create(messages=[{"role": "user", "content": [cached, picture]}], system=system, **ask)
    assert message.content[0].text == words(2) and message.usage.input_tokens == 3, message
    for choice, kind in [({"type": "any"}, "tool_use"), ({"type": "tool", "name": "weather"}, "tool_use"), ({"type": "none"}, "text")]:
        message = client().messages.create(model="sim", max_tokens=99, messages=HI, tools=[WEATHER], tool_choice=choice)
        assert message.content[0].type == kind, (choice, message)


def counted():
    count = client().messages.count_tokens(model="sim", messages=[{"role": "user", "content": "one two"}], system="three")
    assert count.input_tokens == 3, count


def models():
    # A page, which the client walks over; and one by its name.
    listed = list(client().models.list(limit=1))
    assert "sim" in [model.id for model in listed], listed
    one = client().models.retrieve("sim")
    assert one.type == "model" and one.id == "sim" and one.display_name, one


def failing(code, **script):
    sim = {"error_after": 0, "error_code": code, "always": True, **script}
    return dict(model="sim", max_tokens=1, messages=HI, extra_body={"sim": sim})


def retries():
    # Retry-After is longer than the client's own pause before its first retry, which is below 1 s.
    began = time.monotonic()
    try:
        anthropic.Anthropic(base_url=URL, api_key="unused", max_retries=1).messages.create(
            **failing("rate_limited", retry_after_ms=2000)
        )
        raise AssertionError("it was answered")
    except anthropic.RateLimitError:
        assert time.monotonic() - began >= 2


def errors():
    cases = [
        (anthropic.NotFoundError, "not_found_error", dict(model="nobody", max_tokens=1, messages=HI)),
        (anthropic.BadRequestError, "invalid_request_error", dict(model="sim", max_tokens=0, messages=HI)),
        (anthropic.BadRequestError, "invalid_request_error", dict(model="sim", max_tokens=1, messages=[])),
        (anthropic.RateLimitError, "rate_limit_error", failing("rate_limited")),
        (anthropic.InternalServerError, "api_error", failing("internal")),
        (anthropic.BadRequestError, "invalid_request_error", failing("context_length_exceeded")),
    ]
    for kind, word, arguments in cases:
        for stream in [False, True]:
            try:
                client().messages.create(stream=stream, **arguments)
                raise AssertionError(f"{arguments} is wrong")
            except kind as error:
                assert error.body["error"]["type"] == word and error.request_id == error.body["request_id"], error.body


def broken():
    sim = {"sim": {"error_after": 3, "error_code": "internal", "always": True}}
    names = []
    try:
        with client().messages.create(model="sim", max_tokens=9, messages=HI, stream=True, extra_body=sim) as stream:
            for event in stream:
                names.append(event.type)
        raise AssertionError(f"an engine that fails is an error: {names}")
    except anthropic.APIError as error:
        assert error.body["error"]["type"] == "api_error", error.body
    assert "message_stop" not in names and "content_block_delta" in names, names


async def concurrently():
    sim = anthropic.AsyncAnthropic(base_url=URL, api_key="unused", max_retries=0)

    async def one(count):
        async with sim.messages.stream(model="sim", max_tokens=count, messages=HI) as stream:
            assert await stream.get_final_text() == words(count)

    await asyncio.gather(*(one(count) for count in range(1, 9)))


for test in [one_piece, streamed, stream_helper, tools, structured, tool_runner, more_forms, counted, models, errors, retries, broken]:
    test()
    print("ok", test.__name__, flush=True)
asyncio.run(concurrently())
print("ok concurrently")
