"""OpenAI's own client against a cluster: chat, tools, structured output, completions, embeddings.

Arguments: the base URL; the simulated engine serves the model `sim` with all that it can, and the model `plain`
without tools and embeddings.
"""

import json
import sys

from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
HELLO = [{"role": "user", "content": "Hello?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class City(BaseModel):
    name: str
    inhabitants: int


def chat():
    answer = client.chat.completions.create(model="sim", messages=HELLO, max_completion_tokens=3, n=2, seed=1)
    assert [choice.message.content for choice in answer.choices] == ["t0 t1 t2 "] * 2, answer
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 6, answer
    chunks = list(
        client.chat.completions.create(
            model="sim", messages=HELLO, max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "t0 t1 t2 " and chunks[-1].usage.completion_tokens == 3, chunks
    answer = client.chat.completions.create(
        model="sim", messages=HELLO, max_tokens=2, logprobs=True, top_logprobs=2, user="u", metadata={"a": "b"}, store=False
    )
    tokens = answer.choices[0].logprobs.content
    assert [token.token for token in tokens] == ["t0 ", "t1 "] and len(tokens[0].top_logprobs) == 2, answer
    answer = client.chat.completions.create(model="sim", messages=HELLO, max_tokens=1, reasoning_effort="low")
    assert answer.choices[0].message.model_extra["reasoning_content"].startswith("r0"), answer


def tools():
    answer = client.chat.completions.create(model="sim", messages=HELLO, tools=[TOOL])
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, answer
    call = choice.message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "t0", "days": 1}, call
    result = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    answer = client.chat.completions.create(
        model="sim", messages=[*HELLO, choice.message, result], tools=[TOOL], tool_choice="auto", max_tokens=2
    )
    assert answer.choices[0].message.content == "t0 t1 ", answer
    two = [{"name": "weather", "arguments": {"city": name, "days": 2}} for name in ("Paris", "Rome")]
    with client.chat.completions.stream(
        model="sim", messages=HELLO, tools=[TOOL], parallel_tool_calls=True, extra_body={"sim": {"tool_calls": two}}
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds, kinds
    calls = final.choices[0].message.tool_calls
    assert [call.function.parsed_arguments["city"] for call in calls] == ["Paris", "Rome"], calls


def structured():
    answer = client.chat.completions.parse(model="sim", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="t0", inhabitants=0), answer
    answer = client.chat.completions.create(model="sim", messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict), answer


def completions():
    answer = client.completions.create(model="sim", prompt=["a", "b"], max_tokens=2, logprobs=1, echo=True)
    assert [choice.text for choice in answer.choices] == ["at0 t1 ", "bt0 t1 "], answer
    assert answer.object == "text_completion" and answer.choices[0].logprobs.tokens == ["t0 ", "t1 "], answer
    assert answer.choices[0].logprobs.text_offset == [1, 4], answer
    chunks = list(client.completions.create(model="sim", prompt="a", max_tokens=3, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "t0 t1 t2 ", chunks
    assert chunks[-1].choices[0].finish_reason == "length", chunks


def embeddings():
    # The client asks for base64 by itself and decodes it.
    answer = client.embeddings.create(model="sim", input=["a", "b", "a"], dimensions=5)
    floats = client.embeddings.create(model="sim", input="a", dimensions=5, encoding_format="float")
    vectors = [item.embedding for item in answer.data]
    assert len(vectors[0]) == 5 and vectors[0] == vectors[2] != vectors[1], answer
    assert all(abs(a - b) < 1e-6 for a, b in zip(vectors[0], floats.data[0].embedding)), floats
    assert answer.model == "sim" and answer.usage.prompt_tokens == 3, answer
    assert len(client.embeddings.create(model="sim", input=[[1, 2], [3]]).data) == 2


def errors():
    for ask in (
        lambda: client.embeddings.create(model="plain", input="a"),
        lambda: client.chat.completions.create(model="plain", messages=HELLO, tools=[TOOL], tool_choice="required"),
    ):
        try:
            ask()
            raise AssertionError("it was answered")
        except BadRequestError as error:
            assert error.code == "unsupported_feature" and "plain" in error.message, error
    offered = client.chat.completions.create(model="plain", messages=HELLO, tools=[TOOL], max_tokens=1)
    assert offered.choices[0].message.content == "t0 ", offered
    allowed = client.chat.completions.create(model="plain", messages=HELLO, tools=[TOOL], tool_choice="none", max_tokens=1)
    assert allowed.choices[0].message.content == "t0 ", allowed
    try:
        client.completions.create(model="none", prompt="a")
        raise AssertionError("it was answered")
    except NotFoundError as error:
        assert error.code == "model_not_found", error
    assert {model.id for model in client.models.list()} == {"sim", "plain"}


for test in (chat, tools, structured, completions, embeddings, errors):
    test()
    print("passed:", test.__name__)
