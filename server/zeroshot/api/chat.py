"""`POST /v1/chat/completions`: a conversation written down by the chat template, and the model's next line in it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BeforeValidator, ConfigDict, Field

from zeroshot.api import fields
from zeroshot.api.chat_template import ChatTemplate, Role
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import OPENAI_ERRORS
from zeroshot.api.generation import sampling_params
from zeroshot.api.json_answer import JSONAnswer, in_turns
from zeroshot.api.openai_protocol import Frame, OpenAIBody, UsageInChunks, openai_usage
from zeroshot.api.prompts import check_length
from zeroshot.api.sse import STREAMED, event_stream
from zeroshot.api.structured_outputs import default_max_tokens, generation_of
from zeroshot.api.threads import in_thread
from zeroshot.caller import limit_time
from zeroshot.errors import ContextLengthExceeded, InvalidRequest
from zeroshot.model_client import ChoiceDelta, ModelClient
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import GenerateRequest, TokenLogprob

router = APIRouter(prefix="/v1", tags=["openai"])

DEFAULT_MAX_TOKENS = 256
MAX_MESSAGES = 1024


def _text_of_parts(value: Any) -> Any:
    """OpenAI's list of content parts as one text."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        raise ValueError('only text parts are supported: {"type": "text", "text": "..."}')
    return "".join(part["text"] for part in value)


class ChatMessage(fields.NullsAreDefaults, fields.StrictBody):
    """`name` and the like are ignored: the transcript has no place for them."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[fields.Text, BeforeValidator(_text_of_parts)] = Field(
        examples=["What is the capital of France?"]
    )

    @property
    def template_role(self) -> Role:
        return "system" if self.role == "developer" else self.role


class ChatBody(OpenAIBody):
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Default: 256, or what the context has room for."
    )
    max_completion_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Goes before max_tokens.")
    logprobs: bool = False
    top_logprobs: fields.Logprobs | None = None

    def check(self, client: ModelClient) -> None:
        super().check(client)
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true.", field="top_logprobs")


@router.post(
    "/chat/completions", summary="Answer in a conversation, as OpenAI's API does.", responses=STREAMED | OPENAI_ERRORS
)
async def chat_completions(body: ChatBody, request: Request) -> Response:
    """GPT-2 knows no chat format: the conversation becomes a transcript that the model continues.

    `prompts/chat/default.yaml` says how. What stands in a message is plain text, also `<|endoftext|>`.
    """
    client: ModelClient = request.app.state.client
    template: ChatTemplate | None = request.app.state.chat_template
    body.check(client)
    limit_time(body.timeout)
    if template is None:
        raise InvalidRequest("This server has no chat template: its prompts folder lacks chat/default.yaml.")
    call = await _Call.prepare(body, client, template)
    headers = body.ignored_fields()
    if body.stream:
        return await event_stream(request, call.stream(), headers=headers)
    return JSONAnswer(await cancel_on_disconnect(request, call.run()), headers=headers)


class _Call:
    """One request: the body, and the generation it asks for."""

    def __init__(self, body: ChatBody, client: ModelClient, template: ChatTemplate, token_ids: list[int]) -> None:
        self.body, self.client = body, client
        self.frame = Frame("chat.completion.chunk" if body.stream else "chat.completion", "chatcmpl", client)
        grammar = body.grammar()
        # A choice is scored as it follows "Assistant:"; the space comes off again like all before an answer.
        choices = None if body.choices is None else [f" {choice.lstrip()}" for choice in body.choices]
        self.is_exact = grammar is not None
        beams = body.beams()
        stop = body.stop if choices or grammar else [*template.stop, *body.stop]
        params = sampling_params(
            body.model_copy(update={"stop": stop}),
            client,
            num_prompt_tokens=len(token_ids),
            prompt_field="messages",
            max_tokens=body.max_completion_tokens or body.max_tokens,
            default_max_tokens=default_max_tokens(DEFAULT_MAX_TOKENS, client, choices=choices, grammar=grammar),
            seed=body.engine_seed(),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            grammar=grammar,
            beams=beams,
        )
        if len(token_ids) + params.max_tokens > client.max_model_len:
            raise ContextLengthExceeded(
                len(token_ids),
                params.max_tokens,
                client.max_model_len,
                field="messages",
                max_tokens_field="max_completion_tokens" if body.max_completion_tokens else "max_tokens",
            )
        request = GenerateRequest(
            request_id=self.frame.id, prompt_token_ids=token_ids, sampling_params=params, n=body.n
        )
        self.generation = generation_of(client, [request], choices, prompt_field="messages")

    @classmethod
    async def prepare(cls, body: ChatBody, client: ModelClient, template: ChatTemplate) -> Self:
        text = template.render([(message.template_role, message.content) for message in body.messages])
        check_length(text, client, "messages")
        return cls(body, client, template, await in_thread(client.tokenizer.encode, text))

    async def run(self) -> dict[str, Any]:
        (completions,) = await self.generation.complete()
        choices = await in_turns(
            {
                "index": completion.index,
                "message": {"role": "assistant", "content": self._content(completion.text), "refusal": None},
                "logprobs": self._logprobs(completion),
                "finish_reason": completion.finish_reason,
                "stop_reason": completion.stop_reason,
            }
            for completion in completions
        )
        return self.frame.around(choices, usage=openai_usage(self.generation.usage()))

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        usage = UsageInChunks(self.body.stream_options, self.generation)
        has_begun: dict[int, bool] = {}  # choice -> whether anything but white space has come
        async with aclosing(self.generation.deltas()) as deltas:
            async for _, delta in deltas:
                content = delta.text if has_begun.get(delta.index) else self._content(delta.text)
                is_first = delta.index not in has_begun
                has_begun[delta.index] = has_begun.get(delta.index, False) or bool(content)
                if is_first or content or delta.finish_reason or self.body.logprobs:
                    chunk = self._chunk(delta, content, is_first=is_first)
                    yield self.frame.around([chunk], **usage.so_far())
        if usage.is_wanted:
            yield self.frame.around([], **usage.total())

    def _content(self, text: str) -> str:
        """The beginning of an answer, or all of it: without the white space that only the transcript needs."""
        return text if self.is_exact else text.lstrip()

    def _chunk(self, delta: ChoiceDelta, content: str, *, is_first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if is_first else {}
        return {
            "index": delta.index,
            "delta": role | ({"content": content} if is_first or content else {}),
            "logprobs": self._logprobs(delta),
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }

    def _logprobs(self, delta: ChoiceDelta) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        return {"content": [_chat_logprob(self.client.tokenizer, logprob) for logprob in delta.logprobs]}


def _chat_logprob(tokenizer: Tokenizer, logprob: TokenLogprob) -> dict[str, Any]:
    def one(token_id: int, value: float) -> dict[str, Any]:
        raw = tokenizer.token_bytes(token_id)
        return {"token": tokenizer.token_text(token_id), "logprob": value, "bytes": list(raw)}

    top = [one(token_id, value) for token_id, value in logprob.top]
    return one(logprob.token_id, logprob.logprob) | {"top_logprobs": top}
