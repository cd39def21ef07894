"""JSON as an answer's body. Written by msgspec, which takes a seventh of the time that Python's own writer does."""

from typing import Any

import msgspec
from fastapi.responses import JSONResponse


class JSONAnswer(JSONResponse):
    """An answer with 100,000 log-probabilities is 5 MB, and nothing else moves while it is written.

    NaN and infinity become null, so they must not get here: the engine ends what isn't finite with an error.
    """

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)
