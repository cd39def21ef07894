"""`langchain-openai`, unmodified."""

from typing import Any

import pytest

langchain_openai = pytest.importorskip(
    "langchain_openai", reason="langchain-openai is not installed: pip install -e '.[clients]'"
)

PROMPT = "It was a dark night, and"


@pytest.fixture
def llm(server: Any, model_name: str) -> Any:
    return langchain_openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", model=model_name, temperature=0, max_tokens=8, max_retries=0
    )


def test_invoke_stream_and_batch(llm: Any, server: Any) -> None:
    expected = server.generate(prompt=PROMPT, max_tokens=8, temperature=0)["choices"][0]["text"]
    assert llm.invoke(PROMPT) == expected
    assert "".join(llm.stream(PROMPT)) == expected
    assert llm.batch([PROMPT, "Another"])[0] == expected


def test_generate_with_everything(llm: Any) -> None:
    result = llm.generate([PROMPT, "Another"], stop=["never"])
    assert len(result.generations) == 2
    assert result.llm_output["token_usage"]["prompt_tokens"] == 8


def test_chat(server: Any, model_name: str) -> None:
    chat = langchain_openai.ChatOpenAI(
        base_url=f"{server.url}/v1", api_key="none", model=model_name, temperature=0, max_tokens=8, max_retries=0
    )
    plain = chat.invoke([("system", "Be brief."), ("human", "Hello")])
    assert plain.usage_metadata["output_tokens"] <= 8
    streamed = list(chat.stream([("system", "Be brief."), ("human", "Hello")]))
    assert "".join(chunk.content for chunk in streamed) == plain.content
