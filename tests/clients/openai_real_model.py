"""OpenAI's own client and the default engine with a real, small model: python openai_real_model.py BASE_URL

It serves the model `smol`. What a model of this size says is not judged, only that it comes whole and in form.
"""

import sys

import openai
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
ASK = dict(model="smol", messages=[{"role": "user", "content": "Name a city and its size."}], temperature=0)


class City(BaseModel):
    city: str = Field(max_length=20)
    size: int = Field(ge=0, le=9)


def chat():
    answer = client.chat.completions.create(max_tokens=8, seed=1, **ASK)
    text = answer.choices[0].message.content
    assert text and answer.usage.completion_tokens == 8 and answer.choices[0].finish_reason == "length", answer
    chunks = list(client.chat.completions.create(max_tokens=8, seed=1, stream=True, **ASK))
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(deltas) == text and sum(map(bool, deltas)) > 1, (text, deltas)


def structured():
    parsed = client.chat.completions.parse(response_format=City, max_tokens=99, **ASK).choices[0].message.parsed
    assert isinstance(parsed, City), parsed
    response = client.responses.parse(model="smol", input="Name a city.", text_format=City, temperature=0)
    assert isinstance(response.output_parsed, City), response


def others():
    answer = client.completions.create(model="smol", prompt="One, two, three,", max_tokens=4, temperature=0)
    assert "four" in answer.choices[0].text, answer
    vectors = client.embeddings.create(model="smol", input=["a cat", "a dog"]).data
    assert len(vectors) == 2 and len(vectors[0].embedding) == len(vectors[1].embedding) > 99, vectors


def refused():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    try:
        client.chat.completions.create(tools=[tool], tool_choice="required", **ASK)
        raise AssertionError("its chat template has no place for tools")
    except openai.BadRequestError as error:
        assert (error.code, error.param) == ("unsupported_feature", "tools"), error


for test in (chat, structured, others, refused):
    test()
    print("passed:", test.__name__, flush=True)
