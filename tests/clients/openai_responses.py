"""OpenAI's own Python client against /v1/responses: python openai_responses.py BASE_URL OTHER_BASE_URL

Two gateways of one cluster with JetStream, whose simulated engine serves the model `sim`. Every answer and
event is also read with the types of the package in strict mode.
"""

import asyncio
import sys

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

HERE, THERE = sys.argv[1:3]
EVENT = TypeAdapter(ResponseStreamEvent)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def client(url=HERE):
    return openai.OpenAI(base_url=url, api_key="unused", max_retries=0)


def strict(response):
    Response.model_validate_json(response.model_dump_json(by_alias=True, exclude_unset=True), strict=True)
    return response


def words(count):
    return "".join(f"t{number} " for number in range(count))


def one_piece():
    response = strict(client().responses.create(model="sim", input="one two", max_output_tokens=4))
    assert response.output_text == words(4), response
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.input_tokens == 2 and response.usage.output_tokens == 4
    assert response.id.startswith("resp_") and response.object == "response"


def streamed():
    text, names = "", []
    with client().responses.create(model="sim", input="hi", max_output_tokens=5, stream=True) as stream:
        for number, event in enumerate(stream):
            EVENT.validate_json(event.model_dump_json(by_alias=True, exclude_unset=True), strict=True)
            assert event.sequence_number == number, event
            names.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
    assert text == words(5), text
    assert names[:2] == ["response.created", "response.in_progress"] and names[-1] == "response.incomplete", names


def stream_helper():
    sim = {"sim": {"finish_reason": "stop", "reasoning": "because"}}
    with client().responses.stream(model="sim", input="hi", max_output_tokens=3, extra_body=sim) as stream:
        for _ in stream:
            pass
        response = strict(stream.get_final_response())
    assert [item.type for item in response.output] == ["reasoning", "message"], response
    assert response.output[0].content[0].text == "because" and response.output_text == words(3)


def tools():
    ask = [{"role": "user", "content": "How is the weather in Zurich?"}]
    arguments = dict(model="sim", tools=[WEATHER], store=False)
    first = strict(client().responses.create(input=ask, **arguments))
    call = first.output[0]
    assert call.type == "function_call" and call.name == "weather" and call.status == "completed", first
    with client().responses.stream(input=ask, **arguments) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output[0].arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = strict(client().responses.create(input=[*ask, *first.output, result], **arguments))
    assert second.output[0].type == "message" and second.output_text.startswith("t0 "), second


def structured():
    class Weather(BaseModel):
        city: str
        degrees: int

    parsed = client().responses.parse(model="sim", input="hi", text_format=Weather)
    assert isinstance(parsed.output_parsed, Weather), parsed


def conversation():
    first = strict(client().responses.create(model="sim", input="one two three", instructions="four"))
    second = strict(client(THERE).responses.create(model="sim", input="more", previous_response_id=first.id))
    # 3 words asked and all that was answered, and 1 more; the instructions are not carried over.
    assert second.usage.input_tokens == 3 + first.usage.output_tokens + 1, second.usage
    again = strict(client(THERE).responses.retrieve(first.id))
    assert again.output_text == first.output_text
    items = list(client().responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.type for item in items] == ["message"] * 3, items
    assert items[0].content[0].text == "one two three"
    client().responses.delete(first.id)
    try:
        client(THERE).responses.retrieve(first.id)
        raise AssertionError("it is deleted")
    except openai.NotFoundError as error:
        assert error.code == "response_not_found", error


def counted():
    assert client().responses.input_tokens.count(model="sim", input="one two three").input_tokens == 3


def refused():
    try:
        client().responses.create(model="sim", input="hi", tools=[{"type": "web_search"}])
        raise AssertionError("there is no web here")
    except openai.BadRequestError as error:
        assert error.param == "tools[0].type" and "web_search" in error.message, error


def broken():
    sim = {"sim": {"error_after": 3, "error_code": "internal", "always": True}}
    names = []
    try:
        with client().responses.create(model="sim", input="hi", stream=True, extra_body=sim) as stream:
            for event in stream:
                names.append(event.type)
        raise AssertionError(f"an engine that fails is an error: {names}")
    except openai.APIError:
        pass
    assert "response.completed" not in names and "response.output_text.delta" in names, names


async def concurrently():
    sim = openai.AsyncOpenAI(base_url=HERE, api_key="unused", max_retries=0)

    async def one(count):
        text = ""
        stream = await sim.responses.create(model="sim", input="hi", max_output_tokens=count, stream=True)
        async for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
        assert text == words(count), text

    await asyncio.gather(*(one(count) for count in range(1, 9)))


for test in [one_piece, streamed, stream_helper, tools, structured, conversation, counted, refused, broken]:
    test()
    print("ok", test.__name__, flush=True)
asyncio.run(concurrently())
print("ok concurrently")
