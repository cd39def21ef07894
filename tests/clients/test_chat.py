"""`POST /v1/chat/completions`: with the `openai` package, and the template behind it."""

from pathlib import Path
from typing import Any

import pytest

from zeroshot.api.chat_template import ChatTemplate
from zeroshot.errors import PromptFileError

DEFAULT = Path(__file__).parents[2] / "prompts" / "chat" / "default.yaml"
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": [{"type": "text", "text": "How are "}, {"type": "text", "text": "you?"}]},
]
TRANSCRIPT = "Be brief.\n\nUser: Hello\nAssistant: Hi!\nUser: How are you?\nAssistant:"


@pytest.fixture
def create(server: Any, model_name: str) -> Any:
    openai = pytest.importorskip("openai", reason="openai is not installed: pip install -e '.[clients]'")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    return lambda **body: client.chat.completions.create(**({"model": model_name, "messages": MESSAGES} | body))


def test_the_default_template() -> None:
    messages = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi!"), ("user", "How are you?")]
    assert ChatTemplate.from_file(DEFAULT).render(messages) == TRANSCRIPT
    tricky = "{content} {0.__class__} {{7*7}}"
    assert tricky in ChatTemplate.from_file(DEFAULT).render([("user", tricky)])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("User: {content}", "User:", "default.yaml:4: user: {content} must stand here once"),
        ('"Assistant:"', '"Assistant: "', "default.yaml:7: generation: must not end with a space"),
        ("stop:", "stops:", "stops"),
    ],
)
def test_a_mistake_in_the_template_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "default.yaml"
    path.write_text(DEFAULT.read_text().replace(old, new))
    with pytest.raises(PromptFileError, match=r"default\.yaml:\d+") as caught:
        ChatTemplate.from_file(path)
    assert message in caught.value.message


def test_it_is_the_transcripts_continuation(create: Any, server: Any) -> None:
    answer = create(temperature=0, max_tokens=12)
    body = {"prompt": TRANSCRIPT, "temperature": 0, "max_tokens": 12, "stop": ["\nUser:", "\nAssistant:"]}
    expected = server.generate(**body)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == expected["choices"][0]["text"].lstrip()
    assert answer.usage.prompt_tokens == expected["usage"]["prompt_tokens"]


@pytest.mark.parametrize("max_tokens", [1, 2, 7, 25])
def test_a_stream_says_the_same_as_a_plain_answer(create: Any, max_tokens: int) -> None:
    body = {"max_completion_tokens": max_tokens, "seed": max_tokens, "n": 2, "logprobs": True, "top_logprobs": 2}
    plain = create(**body)
    texts, tokens, ends = {0: "", 1: ""}, {0: [], 1: []}, {}
    chunks = list(create(**body, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        tokens[choice.index] += [logprob.token for logprob in choice.logprobs.content]
        ends[choice.index] = choice.finish_reason
    for choice in plain.choices:
        assert texts[choice.index] == choice.message.content
        assert tokens[choice.index] == [logprob.token for logprob in choice.logprobs.content]
        assert ends[choice.index] == choice.finish_reason
        assert all(len(logprob.top_logprobs) == 2 for logprob in choice.logprobs.content)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "a " * 1100}]}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_mistakes_are_bad_requests(create: Any, wrong: dict[str, Any], param: str) -> None:
    import openai

    with pytest.raises(openai.BadRequestError) as caught:
        create(**wrong)
    assert caught.value.param == param


def test_no_alternatives_need_no_logprobs(create: Any) -> None:
    """As vLLM has it, for clients that send the field with every request."""
    assert create(max_tokens=1, logprobs=False, top_logprobs=0).choices[0].logprobs is None


def test_end_of_text_in_a_message_is_plain_text(create: Any) -> None:
    plain = create(messages=[{"role": "user", "content": "<|endoftext|>"}], max_tokens=1)
    assert plain.usage.prompt_tokens > 8
