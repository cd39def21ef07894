"""`/tokenize`, `/detokenize`, `/tokenizer_info`: the model's tokenizer, in vLLM's shapes."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from zeroshot.api import fields
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import documented
from zeroshot.api.models import check_model
from zeroshot.api.prompts import check_token_ids
from zeroshot.api.threads import in_thread
from zeroshot.errors import InvalidRequest
from zeroshot.model_client import ModelClient

router = APIRouter(tags=["tokens"])

MAX_TEXT_CHARS = 2**19
"""A text without spaces of that length takes seconds; longer ones would keep the tokeniser's threads busy. The text of
token ids can have no more: 3 MB of them can stand for 67.
"""


class TokenizeBody(fields.StrictBody):
    model: fields.Text | None = None
    prompt: fields.Text = Field(examples=["It was a dark night, and"])
    add_special_tokens: bool = Field(default=True, description="Changes nothing: GPT-2's tokenizer adds none.")
    return_token_strs: bool | None = Field(default=False, description="Also return each token's text.")


class TokenizeResponse(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeBody(fields.StrictBody):
    model: fields.Text | None = None
    # Without fail_fast each bad id would become an error before one is named: ten seconds for a body of them.
    tokens: list[fields.TokenId] = Field(fail_fast=True)


class DetokenizeResponse(BaseModel):
    prompt: str = Field(description="Bytes that are not UTF-8 become U+FFFD.")


class TokenizerInfo(BaseModel):
    tokenizer_class: str
    bos_token: str
    eos_token: str
    unk_token: str
    pad_token: str | None
    add_bos_token: bool
    add_prefix_space: bool
    vocab_size: int
    model_max_length: int


@router.post("/tokenize", summary="A text's token ids.", responses=documented(400, 404, 413, 422))
async def tokenize(body: TokenizeBody, request: Request) -> TokenizeResponse:
    """`<|endoftext|>` in the text is the end-of-text token."""
    client: ModelClient = request.app.state.client
    check_model(body.model, client)
    if len(body.prompt) > MAX_TEXT_CHARS:
        raise InvalidRequest(
            f"The text has {len(body.prompt)} characters; at most {MAX_TEXT_CHARS} are tokenised at once.",
            field="prompt",
        )
    # In a thread: a long text takes tens of milliseconds, its tokens' texts seconds, in which no stream would move.
    token_ids = await cancel_on_disconnect(request, in_thread(client.tokenizer.encode_with_special, body.prompt))
    return TokenizeResponse(
        count=len(token_ids),
        max_model_len=client.max_model_len,
        tokens=token_ids,
        token_strs=await in_thread(partial(_texts, client), token_ids) if body.return_token_strs else None,
    )


@router.post("/detokenize", summary="The text of token ids.", responses=documented(400, 404, 413, 422))
async def detokenize(body: DetokenizeBody, request: Request) -> DetokenizeResponse:
    client: ModelClient = request.app.state.client
    check_model(body.model, client)
    check_token_ids(body.tokens, "tokens", client.vocab_size)
    text = await cancel_on_disconnect(request, in_thread(client.tokenizer.decode, body.tokens))
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidRequest(
            f"The text has {len(text)} characters; at most {MAX_TEXT_CHARS} are written at once.", field="tokens"
        )
    return DetokenizeResponse(prompt=text)


@router.get("/tokenizer_info", summary="What kind of tokenizer it is.")
async def tokenizer_info(request: Request) -> TokenizerInfo:
    client: ModelClient = request.app.state.client
    end_of_text = client.tokenizer.decode([client.eos_token_id])
    info: dict[str, Any] = dict.fromkeys(("bos_token", "eos_token", "unk_token"), end_of_text)
    return TokenizerInfo(
        tokenizer_class="GPT2Tokenizer",
        pad_token=None,
        add_bos_token=False,
        add_prefix_space=False,
        vocab_size=client.vocab_size,
        model_max_length=client.max_model_len,
        **info,
    )


def _texts(client: ModelClient, token_ids: list[int]) -> list[str]:
    return list(map(client.tokenizer.token_text, token_ids))
