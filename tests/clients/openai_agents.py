"""OpenAI's agents (`openai-agents`) on a cluster: python openai_agents.py BASE_URL

Both ways to a model, chat completions and responses; the simulated engine serves the model `sim`, calls a tool that it
is offered, and answers with text once it has the result.
"""

import asyncio
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)
CLIENT = AsyncOpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
# The agents take an answer that was cut short for a failure.
WHOLE = ModelSettings(extra_body={"sim": {"finish_reason": "stop"}})
SHORT = ModelSettings(max_tokens=3, extra_body=WHOLE.extra_body)
asked = []


class City(BaseModel):
    name: str
    inhabitants: int


@function_tool
def weather(city: str) -> str:
    """Tells the weather."""
    asked.append(city)
    return f"It is sunny in {city}."


async def answers(model):
    agent = Agent(name="one", instructions="Be brief.", model=model, model_settings=SHORT)
    result = await Runner.run(agent, "Hello?")
    assert result.final_output == "t0 t1 t2 ", result
    assert result.raw_responses[0].usage.output_tokens == 3, result.raw_responses


async def calls_a_tool(model):
    asked.clear()
    agent = Agent(name="one", model=model, model_settings=WHOLE, tools=[weather])
    result = await Runner.run(agent, "How is the weather in 'Zürich'?")
    assert asked == ["Zürich"] and result.final_output.startswith("t0 t1 "), (asked, result)
    kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"], kinds


async def streams(model):
    asked.clear()
    agent = Agent(name="one", model=model, model_settings=WHOLE, tools=[weather])
    result = Runner.run_streamed(agent, "How is the weather in 'Rome'?")
    text, kinds = "", []
    async for event in result.stream_events():
        kinds.append(event.type)
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert asked == ["Rome"] and text == result.final_output and text.startswith("t0 t1 "), (asked, text, kinds)


async def has_a_type(model):
    agent = Agent(name="one", model=model, output_type=City)
    result = await Runner.run(agent, "A city named 'Bern' of 134591?")
    assert result.final_output == City(name="Bern", inhabitants=134591), result


async def hands_off(model):
    two = Agent(name="two", handoff_description="Knows all.", model=model, model_settings=SHORT)
    one = Agent(name="one", model=model, handoffs=[two])
    result = await Runner.run(one, "Hello?")
    assert result.last_agent is two and result.final_output == "t0 t1 t2 ", result


async def main():
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        for test in (answers, calls_a_tool, streams, has_a_type, hands_off):
            await test(kind(model="sim", openai_client=CLIENT))
            print("passed:", kind.__name__, test.__name__, flush=True)


asyncio.run(main())
