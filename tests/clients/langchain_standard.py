"""LangChain's standard integration tests over a cluster: python langchain_standard.py BASE_URL

The published `langchain-openai`, put through what LangChain asks of every integration (`langchain-tests`). The
simulated engine serves the models `sim` and `plain`. Nothing is expected to fail; a test that is skipped needs what
the integration itself declares that it lacks.
"""

import os
import sys
from types import SimpleNamespace

import httpx
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

AT = {"model": "sim", "base_url": os.environ.get("TOKENBUS_URL"), "api_key": "unused"}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000" "1f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """The tests fetch a picture, a sound and a document from the web to send them; these do for a simulated engine."""
    monkeypatch.setattr(httpx, "get", lambda *_, **__: SimpleNamespace(content=PNG))


class TestChat(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    chat_model_params = {**AT, "stream_usage": True}
    model_override_value = "plain"
    supports_json_mode = supports_model_override = True
    supports_image_inputs = supports_image_urls = supports_image_tool_message = True
    supports_audio_inputs = supports_pdf_inputs = supports_anthropic_inputs = True


class TestResponses(TestChat):
    """The same through `/v1/responses`."""

    chat_model_params = {**AT, "stream_usage": True, "use_responses_api": True}
    # The integration has no form of an audio part for this API.
    supports_audio_inputs = False


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    # Otherwise the client downloads OpenAI's tokenizer and sends token ids.
    embedding_model_params = {**AT, "check_embedding_ctx_length": False}


if __name__ == "__main__":
    os.environ["TOKENBUS_URL"] = sys.argv[1]
    options = ["-c", os.devnull, "--rootdir", os.path.dirname(__file__), "-p", "no:cacheprovider", "-p", "no:codspeed"]
    options += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"]
    options += ["-o", "asyncio_default_fixture_loop_scope=session", "-q", "-rsx", "--tb=short", "--disable-warnings"]
    sys.exit(pytest.main([__file__, *options, *sys.argv[2:]]))
