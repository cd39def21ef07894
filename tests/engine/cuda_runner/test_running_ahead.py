"""What only the CUDA runner does: rows and seats, steps ahead of the host, several steps at once, results dropped."""

import numpy as np
import pytest
import torch

from zeroshot.engine.cuda_runner import decode_buckets
from zeroshot.engine.decode_record import Layout, Record
from zeroshot.engine.decode_state import MAX_STEPS
from zeroshot.engine.device import HostDevice
from zeroshot.engine.prompt_forward import Size
from zeroshot.engine.sequence import Sequence
from zeroshot.types import SamplingParams


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture
def recorded(small, load_engine, monkeypatch):
    """recorded(**EngineSettings) -> (engine, the list of what the device is given, in order)"""

    def load(**options):
        log = []

        def record(self, function):
            entry = "prompt" if isinstance(function.args[0], Size) else function.args
            return lambda: (log.append(entry), function())

        monkeypatch.setattr(HostDevice, "record", record)
        download = HostDevice.download

        def logged_download(self, tensors):
            wait = download(self, tensors)
            return lambda: (log.append("wait"), wait())[1]

        monkeypatch.setattr(HostDevice, "download", logged_download)
        return load_engine(small.folder, **options), log

    return load


def kinds_of(log):
    return ["step" if isinstance(entry, tuple) else entry for entry in log]


def steps_of(log):
    """How many rows each step had; steps that were recorded together are several."""
    return [num_rows for entry in log if isinstance(entry, tuple) for num_rows in [entry[0]] * entry[2]]


def test_a_step_is_launched_before_the_last_one_is_waited_for(recorded, step, request_of):
    engine, log = recorded(max_num_seqs=1)
    for name in ("a", "b"):  # b waits, so steps come one at a time
        engine.add_request(request_of(name, [1, 2, 3], max_tokens=6, ignore_eos=True))
    results = {}
    step(engine, results)
    assert kinds_of(log) == ["prompt", "step", "wait", "wait"], "prefill: its two waits"
    log.clear()
    step(engine, results)
    assert kinds_of(log) == ["step", "wait"]
    assert len(results["a", 0].token_ids) == 2


def test_several_steps_at_once_unless_somebody_waits(recorded, step, drain, request_of):
    engine, log = recorded(max_num_seqs=1)
    engine.add_request(request_of("a", [1, 2, 3], max_tokens=40, ignore_eos=True))
    results = {}
    step(engine, results)
    assert (len(results["a", 0].token_ids), len(steps_of(log))) == (1, MAX_STEPS)
    step(engine, results)
    assert (len(results["a", 0].token_ids), len(steps_of(log))) == (1 + MAX_STEPS, 2 * MAX_STEPS)
    engine.add_request(request_of("b", [4], max_tokens=2, ignore_eos=True))
    step(engine, results)
    assert len(steps_of(log)) == 2 * MAX_STEPS + 1
    drain(engine, results)
    assert len(results["a", 0].token_ids) == 40


def test_no_step_is_launched_for_those_who_have_all_their_tokens(recorded, run, request_of):
    engine, log = recorded(max_num_seqs=4)
    run(engine, request_of("a", [1, 2], max_tokens=5, ignore_eos=True), request_of("b", [3], max_tokens=1))
    assert len(steps_of(log)) == 4


def test_a_step_ahead_of_an_end_is_dropped(recorded, small, run, request_of, hugging_face_greedy):
    """A stop token comes in the middle of steps that are long launched; whoever goes on is right."""
    engine, log = recorded(max_num_seqs=4)
    prompts = [[5, 6, 7], [8, 9]]
    greedy = [hugging_face_greedy(small.model, prompt, 40, eos_token_id=None) for prompt in prompts]
    stop = next(token_id for token_id in greedy[0] if token_id not in greedy[1])
    end = greedy[0].index(stop) + 1
    results = run(
        engine,
        request_of("stops", prompts[0], max_tokens=40, stop_token_ids=(stop,), ignore_eos=True),
        request_of("goes on", prompts[1], max_tokens=40, ignore_eos=True),
    )
    assert results["stops", 0].token_ids == greedy[0][:end]
    assert results["goes on", 0].token_ids == greedy[1]
    assert len(steps_of(log)) == 39, "everybody's steps were the same ones"


def test_blocks_of_an_ended_sequence_are_safe_with_their_next_owner(load_engine, small, run, request_of, prompts_of):
    """A cache of one context: each sequence gets the blocks that a dropped step has just written into."""
    engine, fresh = (load_engine(small.folder, kv_cache_tokens=128, max_num_seqs=4) for _ in range(2))
    for i, prompt in enumerate(prompts_of(3, [40, 7, 60, 16, 31, 33])):
        first = run(fresh, request_of(f"{i}", prompt, max_tokens=20, ignore_eos=True))[f"{i}", 0].token_ids
        stop = {"stop_token_ids": (first[3],), "max_tokens": 20, "ignore_eos": True}
        result = run(engine, request_of("a", prompt, **stop))["a", 0]
        assert result.token_ids == first[: first.index(first[3]) + 1]
        again = run(engine, request_of("b", prompt + result.token_ids, max_tokens=8, ignore_eos=True))["b", 0]
        assert again.token_ids == first[len(result.token_ids) :][:8]


def test_the_smallest_recorded_step_that_has_room_is_taken(recorded, drain, request_of):
    engine, log = recorded(max_num_seqs=16)
    for i in range(11):
        engine.add_request(request_of(str(i), [i, i + 1], max_tokens=3 if i else 60, ignore_eos=True))
    drain(engine)
    assert set(steps_of(log)[:2]) == {16}
    assert steps_of(log)[-1] == 1, "the one that is left has moved to the first row"


def test_buckets():
    assert decode_buckets(1) == [1]
    assert decode_buckets(3) == [1, 2, 3]
    assert decode_buckets(64) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
    assert decode_buckets(512)[-3:] == [384, 448, 512]
    assert decode_buckets(513)[-2:] == [512, 513]
    for size in range(1, 600):
        buckets = decode_buckets(size)
        assert buckets == sorted(set(buckets))
        assert buckets[-1] == size


def test_what_is_run_only_to_be_compiled_keeps_nothing(small, load_engine, monkeypatch):
    monkeypatch.setattr(HostDevice, "compiles", True)
    runner = load_engine(small.folder, max_num_seqs=5).runner
    assert not runner.kv_cache.key.any()
    assert not runner.kv_cache.value.any()


def test_an_empty_row_writes_nothing(small, load_engine):
    engine = load_engine(small.folder, max_num_seqs=4)
    runner = engine.runner
    before = runner.kv_cache.key.clone(), runner.kv_cache.value.clone()
    longs = runner._state._longs.clone()
    with torch.inference_mode():
        for step in runner._steps.values():
            step()
    assert torch.equal(runner.kv_cache.key, before[0])
    assert torch.equal(runner.kv_cache.value, before[1])
    assert torch.equal(runner._state._longs[1:], longs[1:])


def test_a_record_says_where_each_token_goes():
    layout = Layout(block_size=4, n_positions=32, vocab_size=100, eos_token_id=99)
    params = SamplingParams(max_tokens=6, seed=2**63 - 1, logit_bias={7: 1.5}, frequency_penalty=0.5, min_tokens=3)
    sequence = Sequence("a", 2, [1, 2, 1, 5], 3, params, block_table=[9, 4, 6])
    record = Record.of(sequence, layout)
    assert record.longs.tolist() == [5, 3, 4, 8, 2**63 - 1, 2]
    assert record.slots.tolist() == [36, 37, 38, 39, 16, 17, 18, 19] + [-1] * 25
    assert record.blocks.tolist() == [9, 4, 6, 6, 6, 6, 6, 6]
    assert record.words[2:].tolist() == [5, 1]
    found = {
        int(token_id): (float(np.int32(bias).view(np.float32)), seen, count)
        for token_id, bias, seen, count in record.entries[:, :5].T
    }
    assert found == {7: (1.5, 0, 0), 99: (-np.inf, 0, 0), 1: (0, 1, 0), 2: (0, 1, 0), 5: (0, 1, 1)}


def test_more_biases_than_the_state_has_room_for_end_that_request_only(load_engine, checkpoint, run, request_of):
    engine = load_engine(checkpoint(vocab_size=600).folder)
    many = dict.fromkeys(range(500), 1.0)
    results = run(engine, request_of("a", [1], max_tokens=2, logit_bias=many), request_of("b", [1], max_tokens=2))
    assert results["a", 0].error_code == "generation_failed"
    assert len(results["b", 0].token_ids) == 2


def allowing(*token_ids):
    return np.isin(np.arange(211), token_ids)


def test_a_token_mask_holds_for_its_row_and_for_one_step(recorded, step, drain, run, request_of, monkeypatch):
    from zeroshot.engine import decode_record, device_sampler

    guides = {}
    mask_of = lambda sequence: guides.get(sequence.request_id)  # noqa: E731
    monkeypatch.setattr(decode_record, "token_mask", mask_of)
    monkeypatch.setattr(device_sampler, "token_mask", mask_of)
    engine, log = recorded(max_num_seqs=4)
    free = request_of("free", [1, 2, 3], max_tokens=9, temperature=1.0, ignore_eos=True)
    expected = run(engine, free)["free", 0].token_ids
    results = {}
    guides["held"] = allowing(7, 8)
    engine.add_request(request_of("held", [4, 5], max_tokens=9, temperature=1.0, ignore_eos=True))
    engine.add_request(free)
    log.clear()
    for n in range(1, 9):
        step(engine, results)
        assert len(results["held", 0].token_ids) == n
        assert results["held", 0].token_ids[-1] in ((7, 8) if n % 2 else (9,))
        guides["held"] = allowing(7, 8) if n % 2 == 0 else allowing(9)
    drain(engine, results)
    assert results["free", 0].token_ids == expected
    assert len(steps_of(log)) == 8
