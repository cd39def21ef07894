"""The last check of a request before a kernel runs it. The HTTP side has checked all of this too, and says it better.

Plain Python; called by `engine.py`.
"""

from collections.abc import Iterable

from zeroshot.errors import ContextLengthExceeded, InvalidRequest
from zeroshot.model.config import GPT2Config
from zeroshot.types import MAX_SEED, BeamParams, GenerateRequest


def check_request(request: GenerateRequest, config: GPT2Config) -> None:
    """Raises InvalidRequest for what this model can never run, ContextLengthExceeded for what is too long for it."""
    params, num_prompt_tokens = request.sampling_params, len(request.prompt_token_ids)
    if request.n < 1 or params.max_tokens < 0:
        raise InvalidRequest("n must be at least 1, max_tokens at least 0.")
    if not 0 <= params.seed <= MAX_SEED:
        raise InvalidRequest(f"seed must be at least 0 and at most {MAX_SEED}.", field="seed")
    if not request.prompt_token_ids:
        raise InvalidRequest("The prompt is empty.", field="prompt")
    if num_prompt_tokens + params.max_tokens > config.n_positions:
        raise ContextLengthExceeded(num_prompt_tokens, params.max_tokens, config.n_positions)
    _check_token_ids(request.prompt_token_ids, "prompt", config.vocab_size)
    _check_token_ids(params.logit_bias, "logit_bias", config.vocab_size)
    _check_token_ids(params.stop_token_ids, "stop_token_ids", config.vocab_size)
    for number in (params.logprobs, params.prompt_logprobs):
        if number is not None and not 0 <= number <= config.vocab_size:
            raise InvalidRequest(f"The vocabulary has {config.vocab_size} tokens, not {number}.", field="logprobs")


def _check_token_ids(token_ids: Iterable[int], field: str, vocab_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(f"Token id {token_id} is not in the vocabulary of {vocab_size}.", field=field)


def check_beams(request: GenerateRequest, beams: BeamParams, *, max_beams: int) -> None:
    """Raises InvalidRequest. max_beams: how many sequences of the request's length can run at once."""
    if request.sampling_params.max_tokens < 1:
        raise InvalidRequest("Beam search needs max_tokens of at least 1.", field="max_tokens")
    if not 1 <= request.n <= beams.num_beams:
        raise InvalidRequest("With num_beams, n is num_beams at most.", field="num_beams")
    if beams.num_beams > max_beams:
        num_tokens = len(request.prompt_token_ids) + request.sampling_params.max_tokens
        raise InvalidRequest(
            f"{beams.num_beams} beams of {num_tokens} tokens: there is room for {max_beams}.", field="num_beams"
        )
