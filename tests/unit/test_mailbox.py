"""Which outputs wake the reader, and what it then gets."""

import asyncio

import pytest

from zeroshot.errors import EngineRestarting
from zeroshot.mailbox import Mailbox
from zeroshot.types import TokenLogprob, TokenOutput


def output(token_id: int, choice_index: int = 0, **fields: object) -> TokenOutput:
    logprob = TokenLogprob(token_id=token_id, logprob=-1.0, rank=1, top=[])
    return TokenOutput(
        request_id="r", choice_index=choice_index, token_ids=[token_id], logprobs=[logprob], **fields  # type: ignore[arg-type]
    )  # fmt: skip


async def is_asleep(mailbox: Mailbox) -> bool:
    try:
        await asyncio.wait_for(mailbox.get(), 0.01)
    except TimeoutError:
        return True
    return False


def test_each_output_wakes_its_reader_in_order() -> None:
    async def run() -> None:
        mailbox = Mailbox(is_patient=False)
        assert await is_asleep(mailbox)
        mailbox.put(output(1))
        mailbox.put(output(2, finish_reason="length"))
        assert [item.token_ids for item in await mailbox.get()] == [[1], [2]]
        assert await is_asleep(mailbox)

    asyncio.run(run())


def test_a_patient_reader_sleeps_until_a_choice_has_ended_and_gets_it_whole() -> None:
    async def run() -> None:
        mailbox = Mailbox(is_patient=True)
        mailbox.put(output(1, num_cached_tokens=16))
        mailbox.put(output(7, choice_index=1))
        mailbox.put(output(2))
        assert await is_asleep(mailbox)
        mailbox.put(output(3, finish_reason="stop", stop_token_id=3))
        first, other = await mailbox.get()
        assert (first.token_ids, first.finish_reason, first.stop_token_id) == ([1, 2, 3], "stop", 3)
        assert [logprob.token_id for logprob in first.logprobs] == [1, 2, 3]
        assert first.num_cached_tokens == 16
        assert (other.choice_index, other.token_ids, other.finish_reason) == (1, [7], None)
        mailbox.put(output(8, choice_index=1, finish_reason="length"))
        (rest,) = await mailbox.get()
        assert (rest.token_ids, rest.finish_reason) == ([8], "length")

    asyncio.run(run())


def test_nothing_of_the_last_output_is_lost_when_it_joins_earlier_ones() -> None:
    async def run() -> None:
        mailbox = Mailbox(is_patient=True)
        mailbox.put(output(1))
        last = {"beam_score": -0.5, "error_code": "invalid_request", "error_message": "no", "error_field": "regex"}
        mailbox.put(output(2, finish_reason="error", **last))
        (whole,) = await mailbox.get()
        assert {name: getattr(whole, name) for name in last} == last

    asyncio.run(run())


@pytest.mark.parametrize("is_patient", [False, True])
def test_an_error_comes_after_what_was_there_and_stays(is_patient: bool) -> None:
    async def run() -> None:
        mailbox = Mailbox(is_patient=is_patient)
        mailbox.put(output(1))
        mailbox.fail(EngineRestarting("gone"))
        assert [item.token_ids for item in await mailbox.get()] == [[1]]
        for _ in range(2):
            with pytest.raises(EngineRestarting, match="gone"):
                await mailbox.get()

    asyncio.run(run())


def test_what_has_ended_is_known_before_anybody_reads() -> None:
    async def run() -> None:
        ends: list[Exception | None] = []
        mailbox = Mailbox(is_patient=False, num_choices=2, on_end=ends.append)
        mailbox.put(output(1))
        mailbox.put(output(2, choice_index=1, finish_reason="length"))
        assert ends == []
        mailbox.put(output(3, finish_reason="stop"))
        assert ends == [None]
        error = EngineRestarting("gone")
        broken = Mailbox(is_patient=True, num_choices=2, on_end=ends.append)
        broken.fail(error)
        assert ends == [None, error]

    asyncio.run(run())
