"""What counting and timing cost the event loop at each token: with and without, interleaved, in one process.

    python -m benchmarks.telemetry

Everything the HTTP process does for a streamed token is run (decode the engine's message, hand it out, detokenise,
write the event), with the engine's messages made beforehand. Without: the same, with a timeline that does nothing.
CPU time, as all of it is the event loop's; the ratio is the median of the rounds' ratios.
"""

import argparse
import asyncio
import gc
import statistics
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks import command
from zeroshot import client as client_module
from zeroshot.api.sse import _event
from zeroshot.client import EngineClient
from zeroshot.engine.messages import decode_outputs, encode
from zeroshot.settings import load_settings
from zeroshot.telemetry.record import CURRENT_RECORD, RequestRecord
from zeroshot.telemetry.timeline import Timeline
from zeroshot.types import GenerateRequest, SamplingParams, TokenOutput

PROMPT = [464, 3290, 318]


class NoTimeline:
    """In the place of `Timeline`."""

    error_code: str | None = None

    def __init__(self, *_: Any) -> None: ...
    def received(self, *_: Any) -> None: ...
    def delivered(self, *_: Any) -> None: ...
    def ended(self, *_: Any, **__: Any) -> None: ...


def messages(num_seqs: int, num_tokens: int) -> list[bytes]:
    """One message a step, as an engine sends them."""
    steps = []
    for step in range(num_tokens):
        outputs = [TokenOutput(request_id=str(i), token_ids=[262 + (step + i) % 500]) for i in range(num_seqs)]
        for output in outputs:
            output.scheduled_at = 0.0 if step else time.monotonic()
            output.finish_reason = "length" if step == num_tokens - 1 else None
        steps.append(encode(outputs))
    return steps


async def microseconds_per_token(client: EngineClient, num_seqs: int, num_tokens: int) -> float:
    async def stream(index: int) -> int:
        CURRENT_RECORD.set(RequestRecord(str(index), "POST"))
        params = SamplingParams(max_tokens=num_tokens)
        request = GenerateRequest(request_id=str(index), prompt_token_ids=PROMPT, sampling_params=params)
        return sum([len(_event({"text": delta.text})) async for delta in client.generate(request)])

    streams = asyncio.gather(*(stream(index) for index in range(num_seqs)))
    await asyncio.sleep(0)
    steps = messages(num_seqs, num_tokens)
    gc.collect()
    start = time.process_time()
    for payload in steps:
        client._hand_out(decode_outputs(payload))
        await asyncio.sleep(0)
    await streams
    return 1e6 * (time.process_time() - start) / (num_seqs * num_tokens)


async def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    client = EngineClient(load_settings(), arguments.model)
    client.status = "ready"
    rates: dict[str, list[float]] = {"without": [], "with": []}
    with patch.object(EngineClient, "_send", lambda *_: None):
        for round_number in range(arguments.rounds + 1):  # the first one warms everything up
            for name, timeline in (("without", NoTimeline), ("with", Timeline)):
                with patch.object(client_module, "Timeline", timeline):
                    value = await microseconds_per_token(client, arguments.num_seqs, arguments.num_tokens)
                if round_number:
                    rates[name].append(round(value, 2))
    return rates


def main() -> None:
    parser = command.parser("telemetry", __doc__)
    parser.add_argument("--model", type=Path, default=command.DEMO, help="whose tokenizer turns the tokens into text")
    parser.add_argument("--num-seqs", type=int, default=32, help="streams at once")
    parser.add_argument("--num-tokens", type=int, default=500, help="of each stream")
    parser.add_argument("--rounds", type=int, default=11, help="with and without, by turns")
    arguments = parser.parse_args()
    rates = asyncio.run(measure(arguments))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "num_seqs": arguments.num_seqs,
        "num_tokens": arguments.num_tokens,
        "microseconds_per_token": rates,
        "medians": medians,
        "ratio": round(statistics.median(b / a for a, b in zip(rates["without"], rates["with"], strict=True)), 3),
    }
    command.write("telemetry", result, arguments.output)
    Console().print(f"{medians} us a token on the event loop: {result['ratio']} times")


if __name__ == "__main__":
    main()
