"""LiteLLM as a client of a cluster: python litellm_client.py ADDRESS

The simulated engine serves the model `sim`.
"""

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the web for prices

import litellm
from pydantic import BaseModel

URL = f"http://{sys.argv[1]}/v1"
AT = dict(model="openai/sim", api_base=URL, api_key="unused", num_retries=0, max_retries=0)
HELLO = [{"role": "user", "content": "Hello?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class City(BaseModel):
    name: str
    inhabitants: int


def chat():
    answer = litellm.completion(messages=HELLO, max_tokens=3, **AT)
    assert answer.choices[0].message.content == "t0 t1 t2 " and answer.usage.total_tokens == 4, answer
    chunks = list(
        litellm.completion(messages=HELLO, max_tokens=3, stream=True, stream_options={"include_usage": True}, **AT)
    )
    whole = litellm.stream_chunk_builder(chunks, messages=HELLO)
    assert whole.choices[0].message.content == "t0 t1 t2 " and whole.choices[0].finish_reason == "length", whole
    assert whole.usage.completion_tokens == 3, whole
    # Whatever vLLM's servers understand beside OpenAI's API goes through as well.
    hosted = {**AT, "model": "hosted_vllm/sim"}
    answer = litellm.completion(messages=HELLO, max_tokens=1, reasoning_effort="low", top_k=5, **hosted)
    assert answer.choices[0].message.reasoning_content.startswith("r0"), answer


def tools():
    answer = litellm.completion(messages=HELLO, tools=[TOOL], tool_choice="required", **AT)
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls" and json.loads(call.function.arguments) == {"city": "t0"}, answer
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = litellm.completion(messages=[*HELLO, answer.choices[0].message, result], tools=[TOOL], max_tokens=1, **AT)
    assert answer.choices[0].message.content == "t0 ", answer
    chunks = list(litellm.completion(messages=HELLO, tools=[TOOL], stream=True, **AT))
    whole = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert [one.function.name for one in whole] == ["weather"] and json.loads(whole[0].function.arguments), whole


def structured():
    answer = litellm.completion(messages=HELLO, response_format=City, **AT)
    assert City.model_validate_json(answer.choices[0].message.content) == City(name="t0", inhabitants=0), answer


def others():
    answer = litellm.text_completion(prompt="a", max_tokens=2, **{**AT, "model": "text-completion-openai/sim"})
    assert answer.choices[0].text == "t0 t1 ", answer
    answer = litellm.embedding(input=["a", "b"], dimensions=5, **{**AT, "model": "hosted_vllm/sim"})
    assert [len(one["embedding"]) for one in answer.data] == [5, 5] and answer.usage.prompt_tokens == 2, answer
    ranks = litellm.rerank(query="red", documents=["blue", "red"], **{**AT, "model": "hosted_vllm/sim"})
    assert [one["index"] for one in ranks.results] == [1, 0], ranks


def responses():
    # It asks for 16 tokens at least, as OpenAI wants it.
    answer = litellm.responses(input="hi", max_output_tokens=16, **AT)
    assert answer.output[0].content[0].text.startswith("t0 t1 ") and answer.status == "incomplete", answer
    events = list(litellm.responses(input="hi", max_output_tokens=16, stream=True, **AT))
    assert events[0].type == "response.created", events[0]
    assert events[-1].response.output[0].content[0].text == answer.output[0].content[0].text, events[-1]


async def messages():
    at = dict(model="anthropic/sim", api_base=f"http://{sys.argv[1]}", api_key="unused", max_tokens=2)
    answer = await litellm.anthropic.messages.acreate(messages=HELLO, **at)
    assert answer["content"][0]["text"] == "t0 t1 " and answer["stop_reason"] == "max_tokens", answer
    # Its translation from OpenAI's form to Anthropic's, and ours back.
    answer = await litellm.acompletion(messages=HELLO, **at)
    assert answer.choices[0].message.content == "t0 t1 ", answer
    text = ""
    async for chunk in await litellm.acompletion(messages=HELLO, stream=True, **at):
        text += chunk.choices[0].delta.content or ""
    assert text == "t0 t1 ", text


def errors():
    for kind, ask in [
        (litellm.NotFoundError, lambda: litellm.completion(messages=HELLO, **{**AT, "model": "openai/nobody"})),
        (litellm.BadRequestError, lambda: litellm.completion(messages=HELLO, n=-1, **AT)),
        (litellm.ContextWindowExceededError, lambda: failing("context_length_exceeded")),
        (litellm.RateLimitError, lambda: failing("rate_limited")),
        (litellm.InternalServerError, lambda: failing("internal")),
        (litellm.Timeout, lambda: failing("timeout")),
    ]:
        try:
            raise AssertionError(f"it was answered: {ask()}")
        except kind:
            pass


def failing(code):
    # It knows some errors by what engines say.
    message = "This model's maximum context length is 8 tokens." if code == "context_length_exceeded" else "It fails."
    script = {"sim": {"error_after": 0, "error_code": code, "error_message": message, "always": True}}
    return litellm.completion(messages=HELLO, extra_body=script, **AT)


for test in (chat, tools, structured, others, responses, errors):
    test()
    print("passed:", test.__name__, flush=True)
asyncio.run(messages())
print("passed: messages")
