"""Ollama's own Python client against /api: python ollama_client.py BASE_URL

A gateway in front of a simulated engine that serves the model `sim`. Every answer is read with the types of the
package, which are pydantic models.
"""

import asyncio
import base64
import sys

import ollama

URL = sys.argv[1]
HI = [{"role": "user", "content": "How is the weather in 'Zürich'?"}]
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
client = ollama.Client(host=URL)


def weather(city: str) -> str:
    """Tells the weather.

    Args:
      city: The city.
    """
    return f"sunny in {city}"


def words(count):
    return "".join(f"t{number} " for number in range(count))


def chats():
    options = {"num_predict": 3, "temperature": 0, "num_ctx": 4096, "stop": ["END"], "seed": 7}
    for model in ("sim", "sim:latest"):
        answer = client.chat(model, HI, options=options, keep_alive="5m")
        assert (answer.message.content, answer.model, answer.done) == (words(3), model, True), answer
        assert answer.eval_count == 3 and answer.prompt_eval_count > 0 and answer.total_duration > 0, answer
        assert answer.done_reason in ("stop", "length"), answer
    parts = list(client.chat("sim", HI, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == words(3)
    assert [part.done for part in parts].count(True) == 1 and parts[-1].done, parts
    assert parts[-1].eval_count == 3 and parts[-1].eval_duration >= 0
    seen = [{"role": "user", "content": "look", "images": [PNG]}]
    assert client.chat("sim", seen, options=options).message.content == words(3)


def tools():
    for stream in (False, True):
        answers = client.chat("sim", HI, tools=[weather], options={"num_predict": 99}, stream=stream)
        answers = list(answers) if stream else [answers]
        calls = [call for answer in answers for call in answer.message.tool_calls or ()]
        assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", {"city": "Zürich"})]
        assert answers[-1].done_reason == "stop"
    after = [*HI, {"role": "assistant", "tool_calls": calls}]
    after += [{"role": "tool", "content": weather(**call.function.arguments), "tool_name": "weather"} for call in calls]
    assert client.chat("sim", after, tools=[weather], options={"num_predict": 3}).message.content == words(3)


def generates():
    options = {"num_predict": 3}
    for more in ({}, {"system": "Be kind."}, {"raw": True}, {"suffix": "end"}, {"think": False}):
        answer = client.generate("sim", "hi", options=options, **more)
        assert (answer.response, answer.eval_count) == (words(3), 3), (more, answer)
        parts = list(client.generate("sim", "hi", options=options, stream=True, **more))
        assert "".join(part.response for part in parts) == words(3), more
    assert client.generate("sim").done_reason == "load"
    assert client.generate("sim", keep_alive=0).done_reason == "unload"
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert client.generate("sim", "hi", format=schema, options={"num_predict": 50}).response.startswith("{")


def embeds():
    answer = client.embed("sim", ["a", "b"])
    assert len(answer.embeddings) == 2 and answer.prompt_eval_count > 0 and answer.total_duration > 0, answer
    assert list(client.embeddings("sim", "a").embedding) == list(answer.embeddings[0])


def models():
    (model,) = client.list().models
    assert (model.model, len(model.digest)) == ("sim:latest", 64), model
    (model,) = client.ps().models
    assert model.model == "sim:latest" and model.expires_at.year > 2300
    for name in ("sim", "sim:latest"):
        shown = client.show(name)
        assert {"completion", "tools"} <= set(shown.capabilities), shown
        assert shown.modelinfo["general.basename"] == "sim", shown
    assert client.pull("sim").status == "success"
    assert [part.status for part in client.pull("sim", stream=True)][-1] == "success"


def errors():
    for ask, status in (
        (lambda: client.chat("nobody", HI), 404),
        (lambda: list(client.chat("nobody", HI, stream=True)), 404),
        (lambda: client.generate("nobody"), 404),
        (lambda: client.show("nobody"), 404),
        (lambda: client.pull("nobody"), 404),
        (lambda: client.generate("sim", "hi", template="{{ .Prompt }}"), 400),
        (lambda: client.copy("sim", "other"), 501),
        (lambda: client.push("sim"), 501),
    ):
        try:
            ask()
        except ollama.ResponseError as error:
            assert error.status_code == status and error.error, error
        else:
            raise AssertionError(status)


async def asynchronous():
    client = ollama.AsyncClient(host=URL)
    parts = [part async for part in await client.chat("sim", HI, options={"num_predict": 3}, stream=True)]
    assert "".join(part.message.content for part in parts) == words(3)


for test in (chats, tools, generates, embeds, models, errors):
    test()
    print("passed:", test.__name__)
asyncio.run(asynchronous())
print("passed: asynchronous")
