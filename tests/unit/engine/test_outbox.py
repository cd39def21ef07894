"""Which outputs are sent after a step, and that nothing of any is lost, whatever the occasions."""

from hypothesis import given
from hypothesis import strategies as st

from zeroshot.engine.messages import Generate
from zeroshot.engine.outbox import CROWD, LONGEST_HELD_S, MOST_HELD, Outbox
from zeroshot.types import GenerateRequest, SamplingParams, TokenOutput


def expect(outbox: Outbox, request_id: str, *, is_patient: bool, client_id: bytes = b"client") -> None:
    request = GenerateRequest(request_id=request_id, prompt_token_ids=[1], sampling_params=SamplingParams())
    outbox.expect(Generate(client_id, 1, request, is_patient))


def output(request_id: str, *token_ids: int, choice_index: int = 0, **fields: object) -> TokenOutput:
    return TokenOutput(request_id=request_id, choice_index=choice_index, token_ids=[*token_ids], **fields)  # type: ignore[arg-type]


def taken(outbox: Outbox, now: float = 0.0, *, everything: bool = False) -> list[tuple[str, int, list[int]]]:
    due = outbox.take(now, everything=everything)
    return [(item.request_id, item.choice_index, item.token_ids) for outputs in due.values() for item in outputs]


def test_a_stream_gets_each_step_at_once() -> None:
    outbox = Outbox()
    expect(outbox, "r", is_patient=False)
    for token_id in (5, 6):
        outbox.put([output("r", token_id)])
        assert taken(outbox) == [("r", 0, [token_id])]


def crowded() -> Outbox:
    """With a stream "r" among as many others that something is held."""
    outbox = Outbox()
    for name in ("r", *map(str, range(CROWD - 1))):
        expect(outbox, name, is_patient=False)
    return outbox


def test_of_many_streams_each_gets_its_first_token_at_once_and_then_a_few_together() -> None:
    outbox = crowded()
    outbox.put([output("r", scheduled_at=1.5)])  # a chunk of the prompt
    assert taken(outbox) == []
    outbox.put([output("r", 50)])
    assert taken(outbox) == [("r", 0, [50])]
    for token_id in range(MOST_HELD - 1):
        outbox.put([output("r", token_id)])
        assert taken(outbox, LONGEST_HELD_S / 2) == []
    outbox.put([output("r", 60)])
    assert taken(outbox, LONGEST_HELD_S / 2) == [("r", 0, [*range(MOST_HELD - 1), 60])]
    outbox.put([output("r", 61, finish_reason="length")])
    assert taken(outbox, LONGEST_HELD_S / 2) == [("r", 0, [61])]


def test_of_many_streams_none_waits_longer_than_its_time() -> None:
    outbox = crowded()
    outbox.put([output("r", 1), output("0", 2)])
    assert taken(outbox, 7.0) == [("r", 0, [1]), ("0", 0, [2])]
    outbox.put([output("r", 3)])
    assert taken(outbox, 7.0 + LONGEST_HELD_S / 2) == []
    assert taken(outbox, 8.0) == [("r", 0, [3])], "though the step brought it nothing"
    outbox.put([output("r", 4)])
    outbox.forget("5")
    assert taken(outbox, 8.0) == [("r", 0, [4])], "now they are few"


def test_who_waits_for_the_whole_gets_the_first_token_at_once_and_then_all_others_at_the_end() -> None:
    outbox = Outbox()
    expect(outbox, "r", is_patient=True)
    outbox.put([output("r", scheduled_at=1.5, num_cached_tokens=16)])  # a chunk of the prompt
    assert taken(outbox) == []
    outbox.put([output("r", 5)])
    (first,) = outbox.take(0.0, everything=False)[b"client"]
    assert (first.token_ids, first.scheduled_at, first.num_cached_tokens) == ([5], 1.5, 16)
    for token_id in (6, 7):
        outbox.put([output("r", token_id)])
        assert taken(outbox) == []
    outbox.put([output("r", 8, finish_reason="stop", stop_token_id=8)])
    (last,) = outbox.take(0.0, everything=False)[b"client"]
    assert (last.token_ids, last.finish_reason, last.stop_token_id) == ([6, 7, 8], "stop", 8)


def test_a_heartbeat_takes_what_is_held() -> None:
    outbox = Outbox()
    expect(outbox, "r", is_patient=True)
    outbox.put([output("r", 5)])
    assert taken(outbox) == [("r", 0, [5])]
    outbox.put([output("r", 6)])
    assert taken(outbox, everything=True) == [("r", 0, [6])]
    assert taken(outbox, everything=True) == []


def test_each_choice_has_a_first_token_of_its_own() -> None:
    outbox = Outbox()
    expect(outbox, "r", is_patient=True)
    outbox.put([output("r", 5)])
    assert taken(outbox) == [("r", 0, [5])]
    outbox.put([output("r", 6), output("r", 7, choice_index=1)])
    assert taken(outbox) == [("r", 1, [7])]


def test_an_error_is_due_at_once_with_what_came_before_it() -> None:
    outbox = Outbox()
    expect(outbox, "r", is_patient=True)
    outbox.put([output("r", 5)])
    outbox.take(0.0, everything=False)
    outbox.put([output("r", 6)])
    outbox.put([output("r", finish_reason="error", error_code="nan_logits", error_message="not finite")])
    (last,) = outbox.take(0.0, everything=False)[b"client"]
    assert (last.token_ids, last.finish_reason, last.error_code) == ([6], "error", "nan_logits")


def test_what_was_held_for_a_caller_who_left_is_for_nobody() -> None:
    outbox = Outbox()
    expect(outbox, "gone", is_patient=True)
    expect(outbox, "r", is_patient=True)
    outbox.put([output("gone", 5), output("r", 6)])
    outbox.take(0.0, everything=False)
    outbox.put([output("gone", 7), output("r", 8)])
    outbox.forget("gone")
    outbox.forget("gone")
    assert taken(outbox, everything=True) == [("r", 0, [8])]


def test_each_client_gets_its_own() -> None:
    outbox = Outbox()
    expect(outbox, "a", is_patient=False, client_id=b"one")
    expect(outbox, "b", is_patient=True, client_id=b"two")
    outbox.put([output("b", 1), output("a", 2)])
    due = outbox.take(0.0, everything=False)
    assert {client: [item.request_id for item in outputs] for client, outputs in due.items()} == {
        b"one": ["a"],
        b"two": ["b"],
    }


STEPS = st.lists(st.tuples(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), unique=True), st.booleans()))


@given(STEPS, st.lists(st.booleans(), min_size=4, max_size=4), st.booleans())
def test_every_token_arrives_once_and_in_order(
    steps: list[tuple[list[tuple[int, int]], bool]], patience: list[bool], is_crowded: bool
) -> None:
    outbox = crowded() if is_crowded else Outbox()
    for number, is_patient in enumerate(patience):
        expect(outbox, str(number), is_patient=is_patient)
    sent: dict[tuple[str, int], list[int]] = {}
    arrived: dict[tuple[str, int], list[int]] = {}

    def receive(now: float, *, everything: bool) -> None:
        for request_id, choice_index, token_ids in taken(outbox, now, everything=everything):
            arrived.setdefault((request_id, choice_index), []).extend(token_ids)

    for step, (choices, everything) in enumerate(steps):
        outputs = [output(str(number), step, choice_index=choice) for number, choice in choices]
        for item in outputs:
            sent.setdefault((item.request_id, item.choice_index), []).extend(item.token_ids)
        outbox.put(outputs)
        receive(step * 0.003, everything=everything)
        late = {key: ids for key, ids in sent.items() if arrived.get(key) != ids}
        assert all(is_crowded or patience[int(request_id)] for request_id, _ in late)
        assert all(arrived[key] for key in late), "a first token is late for nobody"
        assert not (everything and late)
    receive(0.0, everything=True)
    assert arrived == sent
