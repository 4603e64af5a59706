"""Open WebUI, headless, against a cluster: python open_webui.py GATEWAY FOLDER

FOLDER has the installed packages. A server of its own is started for this run, and asked as its page asks it. The
cluster has two models: `m`, whose engine calls `get_current_timestamp` and knows titles and tags, and `plain`, which has
no tools and embeds.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import sys
import uuid

import aiohttp
import socketio

GATEWAY, FOLDER = sys.argv[1:3]
PATIENCE = 90
TASKS = {"title_generation": True, "tags_generation": True, "follow_up_generation": True}


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def environment(home):
    """Everything local, nothing downloaded, nobody to sign in, and a gateway behind both kinds of connections."""
    (home / "data").mkdir()
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": FOLDER, "HOME": str(home), "DATA_DIR": str(home / "data"),
        "USE_SLIM_DOCKER": "true", "WEBUI_AUTH": "false", "WEBUI_SECRET_KEY": "unused" * 4,
        "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1", "ENABLE_VERSION_UPDATE_CHECK": "false",
        "SCARF_NO_ANALYTICS": "true", "DO_NOT_TRACK": "true", "ANONYMIZED_TELEMETRY": "false",
        "RAG_EMBEDDING_ENGINE": "openai", "AUDIO_STT_ENGINE": "openai",
        "OPENAI_API_BASE_URL": f"{GATEWAY}/v1", "OPENAI_API_KEY": "unused", "OLLAMA_BASE_URL": GATEWAY,
        "NO_PROXY": "*", "no_proxy": "*",
    }  # fmt: skip


@contextlib.asynccontextmanager
async def server(port):
    """Open WebUI's server; its log is shown if anything fails."""
    home = pathlib.Path.cwd() / "home"
    home.mkdir()
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from open_webui import app; app()", "serve", "--host", "127.0.0.1", "--port", str(port),
            cwd=home, env=environment(home), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    except BaseException:
        print((home / "log").read_text(errors="replace")[-8000:])
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()


class WebUi:
    """A session as the page has it: HTTP, and events on a socket."""

    def __init__(self, http):
        self.http, self.events, self.socket = http, asyncio.Queue(), socketio.AsyncClient(http_session=http)
        self.socket.on("events", self.events.put)

    async def ask(self, path, body=None):
        """The JSON that answers a GET, or a POST with a body."""
        async with self.http.request("GET" if body is None else "POST", path, json=body) as response:
            text = await response.text()
            assert response.status == 200, (path, response.status, text)
            return json.loads(text)

    async def sign_in(self, process):
        async with asyncio.timeout(PATIENCE):
            while True:
                assert process.returncode is None, "the server has ended"
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    await self.ask("/health")
                    break
                await asyncio.sleep(0.2)
        token = (await self.ask("/api/v1/auths/signin", {"email": "", "password": ""}))["token"]
        self.http.headers["authorization"] = f"Bearer {token}"
        await self.socket.connect(
            str(self.http._base_url), auth={"token": token}, socketio_path="/ws/socket.io", transports=["websocket"]
        )

    async def chat(self, model, text):
        """Writes to a new chat; returns it with its title and tags, the answer, and the pieces of its text as they came."""
        question, answer = str(uuid.uuid4()), str(uuid.uuid4())
        message = {
            "id": question, "parentId": None, "childrenIds": [answer], "role": "user", "content": text,
            "timestamp": 1, "models": [model],
        }  # fmt: skip
        begun = await self.ask("/api/chat/completions", {
            "stream": True, "model": model, "params": {}, "features": {}, "session_id": self.socket.sid, "id": answer,
            "parent_id": None, "user_message": message, "background_tasks": dict(TASKS),
            "stream_options": {"include_usage": True},
        })  # fmt: skip
        pieces = []
        async with asyncio.timeout(PATIENCE):
            while True:
                event = await self.events.get()
                kind, data = event["data"]["type"], event["data"].get("data")
                assert "error" not in kind, event
                if kind == "response:completion" and data.get("type") == "response.output_text.delta":
                    pieces.append(data["delta"])
                if kind == "chat:active" and event["chat_id"] == begun["chat_id"] and not data["active"]:
                    break
        chat = await self.ask(f"/api/v1/chats/{begun['chat_id']}")
        answered = chat["chat"]["history"]["messages"][answer]
        assert answered.get("done") and "error" not in answered, answered
        return chat, answered, pieces


async def connections_are_checked_and_models_listed(ui):
    await ui.ask("/openai/verify", {"url": f"{GATEWAY}/v1", "key": "unused"})
    assert (await ui.ask("/ollama/verify", {"url": GATEWAY}))["version"]
    listed = {model["id"]: model["owned_by"] for model in (await ui.ask("/api/models"))["data"]}
    # Ollama's names have a tag, so the same models come by both connections without a prefix.
    ollama = {"m:latest": "ollama", "plain:latest": "ollama"}
    assert listed == ollama | {"m": "openai", "plain": "openai"}, listed
    assert (await ui.ask("/ollama/api/version"))["version"]



async def a_tool_is_called_and_the_chat_is_named(ui, model):
    chat, answer, pieces = await ui.chat(model, "How late is it?")
    kinds = [item["type"] for item in answer["output"]]
    assert kinds == ["function_call", "function_call_output", "message"], answer
    assert "current_timestamp" in json.dumps(answer["output"][1]), answer
    assert answer["content"] == "".join(pieces) == "Quite late." and len(pieces) == 2, (answer, pieces)
    assert chat["title"] == "The time", chat["title"]
    assert answer["followUps"] == ["And where?"], answer
    tags = await ui.ask(f"/api/v1/chats/{chat['id']}/tags")
    assert [tag["name"] for tag in tags] == ["clocks"], tags


async def a_model_without_tools_answers_though_they_are_offered(ui, model):
    chat, answer, pieces = await ui.chat(model, "Good morning.")
    assert len(pieces) > 1 and answer["content"].strip() == "".join(pieces).strip(), (answer, pieces)


async def a_program_streams(ui, model):
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Good morning."}]}
    async with ui.http.post("/api/chat/completions", json=body) as response:
        lines = (await response.text()).split("\n")
    events = [line[6:] for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]" and len(events) > 3, lines
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    assert any(choice["delta"].get("content") for choice in choices), lines
    assert choices[-1]["finish_reason"] == "stop", lines


async def texts_are_embedded(ui):
    listed = await ui.ask("/api/embeddings", {"model": "plain", "input": ["one", "two"]})
    assert len(listed["data"]) == 2 and listed["data"][0]["embedding"], listed
    listed = await ui.ask("/ollama/api/embed", {"model": "plain:latest", "input": ["one", "two"]})
    assert len(listed["embeddings"]) == 2 and listed["embeddings"][0], listed


async def main():
    port = free_port()
    async with server(port) as process, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        ui = WebUi(http)
        await ui.sign_in(process)
        await connections_are_checked_and_models_listed(ui)
        for model in ("m", "m:latest"):
            await a_tool_is_called_and_the_chat_is_named(ui, model)
        for model in ("plain", "plain:latest"):
            await a_model_without_tools_answers_though_they_are_offered(ui, model)
            await a_program_streams(ui, model)
        await texts_are_embedded(ui)
        await ui.socket.disconnect()


asyncio.run(main())
