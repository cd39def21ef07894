"""The client's side of an engine process, without HTTP."""

import asyncio
from pathlib import Path

from zeroshot.admission import Load
from zeroshot.client import EngineClient
from zeroshot.settings import load_settings
from zeroshot.types import GenerateRequest, SamplingParams, TokenOutput

DEMO = Path(__file__).parents[2] / "model_weights" / "demo"


def test_it_may_be_stopped_twice() -> None:
    async def run() -> None:
        client = EngineClient(load_settings(), DEMO)
        await client.start()
        await client.stop()
        await client.stop()

    asyncio.run(run())


def test_what_a_stop_string_has_ended_takes_no_room_until_its_reader_asks_again() -> None:
    """Two choices, of which the engine ends one itself; the reader gets the end of the other, and is busy with it."""
    params = SamplingParams(max_tokens=9, stop=("a",))
    request = GenerateRequest(request_id="r", prompt_token_ids=[1], sampling_params=params, n=2)

    async def run() -> None:
        client = EngineClient(load_settings(), DEMO)
        await client.start()
        client.status = "ready"
        (a,), (b,) = map(client.tokenizer.encode, "ab")
        deltas = client.generate(request)
        reading = asyncio.ensure_future(anext(deltas))
        await asyncio.sleep(0)
        assert client.admission.held.num_seqs == 2
        ended = TokenOutput(request_id="r", choice_index=1, token_ids=[b], finish_reason="length")
        client._hand_out([TokenOutput(request_id="r", token_ids=[a]), ended])
        assert (await reading).stop_reason == "a"
        assert client.admission.held == Load()
        assert (await anext(deltas)).finish_reason == "length"
        assert [delta async for delta in deltas] == []
        await client.stop()

    asyncio.run(run())
