"""A text continued without a server, for `zeroshot generate`: one request to an engine in this process."""

import uuid
from collections.abc import Iterator

from zeroshot.engine.loader import load_engine
from zeroshot.errors import GenerationFailed
from zeroshot.settings import EngineSettings
from zeroshot.text.detokenizer import Detokenizer
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import GenerateRequest, SamplingParams


def continue_text(settings: EngineSettings, prompt: str, params: SamplingParams) -> Iterator[str]:
    """The continuation in pieces, as they are generated.

    Raises what `load_engine` raises, InvalidRequest for a prompt that doesn't fit, and GenerationFailed.
    """
    tokenizer = Tokenizer.from_folder(settings.model_folder)
    engine = load_engine(settings)
    token_ids = tokenizer.encode(prompt)
    engine.add_request(GenerateRequest(request_id=uuid.uuid4().hex, prompt_token_ids=token_ids, sampling_params=params))
    detokenizer = Detokenizer(tokenizer)
    while engine.has_work:
        for output in engine.step():
            if output.error_code is not None:
                raise GenerationFailed(output.error_message)
            yield detokenizer.feed(output.token_ids, is_last=output.finish_reason is not None)
