"""The rule by which prompts go to replicas, and what the parts of a cluster say to each other. No Ray."""

import random
from collections import Counter
from pathlib import Path

import pytest

from zeroshot.caller import Caller
from zeroshot.cluster import messages
from zeroshot.cluster.fleet import Fleet
from zeroshot.cluster.messages import Call, Deltas, Failure, Report
from zeroshot.cluster.prompts import MAX_PACKED_BYTES, pack, unpack
from zeroshot.cluster.routing import PREFIX_TOKENS, prefix_of, ranked
from zeroshot.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineRestarting,
    InvalidRequest,
    NanLogits,
    Overloaded,
    PromptFileError,
    ZeroshotError,
)
from zeroshot.model_client import ChoiceDelta, EngineStatus
from zeroshot.types import EngineStats, GenerateRequest, SamplingParams, TokenLogprob

IDLE = {f"replica-{number}": 0 for number in range(8)}
PREFIXES = [prefix_of([number] * PREFIX_TOKENS) for number in range(400)]


def homes(loads: dict[str, int]) -> list[str]:
    return [ranked(prefix, loads)[0] for prefix in PREFIXES]


def test_prompts_that_begin_alike_have_the_same_prefix() -> None:
    task = list(range(100, 100 + PREFIX_TOKENS))
    assert prefix_of([*task, 1, 2]) == prefix_of([*task, 3]) != prefix_of([*task[:-1], 7, 1, 2])
    assert prefix_of(task[:-1]) is None, "nothing of it stays in the cache"


def test_every_replica_is_the_home_of_its_share() -> None:
    counts = Counter(homes(IDLE))
    assert counts.keys() == IDLE.keys()
    assert max(counts.values()) < 2 * len(PREFIXES) / len(IDLE)


def test_the_order_of_the_replicas_makes_no_difference() -> None:
    names = random.Random(3).sample(sorted(IDLE), len(IDLE))
    assert homes(dict.fromkeys(names, 0)) == homes(IDLE)


def test_a_replica_that_goes_moves_only_its_own_prompts() -> None:
    before = homes(IDLE)
    after = homes({name: load for name, load in IDLE.items() if name != "replica-3"})
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"replica-3"}
    assert len(moved) == before.count("replica-3")


def test_a_replica_that_comes_takes_only_its_share() -> None:
    before, after = homes(IDLE), homes(IDLE | {"replica-8": 0})
    changes = {new for old, new in zip(before, after, strict=True) if old != new}
    assert changes == {"replica-8"}


@pytest.mark.parametrize(("more", "is_at_home"), [(0, True), (5, True), (6, False), (50, False)])
def test_a_loaded_replica_is_passed_over(more: int, is_at_home: bool) -> None:
    home, second, *_ = ranked(PREFIXES[0], IDLE)
    order = ranked(PREFIXES[0], dict.fromkeys(IDLE, 3) | {home: 3 + more}, slack=5)
    assert order[0] == (home if is_at_home else second)
    assert sorted(order) == sorted(IDLE), "the others are still there if nobody else takes it"


def test_among_those_with_too_much_to_do_the_least_loaded_is_first() -> None:
    loads = dict.fromkeys(IDLE, 100) | {"replica-1": 0, "replica-2": 50, "replica-5": 70}
    assert ranked(PREFIXES[0], loads, slack=5)[:3] == ["replica-1", "replica-2", "replica-5"]


@pytest.mark.parametrize("prefix", [None, PREFIXES[0]])
def test_those_to_avoid_come_last(prefix: bytes | None) -> None:
    for avoided in IDLE:
        order = ranked(prefix, dict.fromkeys(IDLE, 9) | {avoided: 0}, avoid=[avoided])
        assert order[-1] == avoided
    assert ranked(prefix, {"alone": 0}, avoid=["alone"]) == ["alone"]
    assert ranked(prefix, {}) == []


def test_without_a_prefix_the_less_loaded_of_two_comes_first() -> None:
    loads = {name: number for number, name in enumerate(IDLE)}
    firsts = Counter(ranked(None, loads)[0] for _ in range(2000))
    assert "replica-7" not in firsts, "there is always one with less"
    assert firsts["replica-0"] > firsts["replica-6"] > 0


def test_a_request_crosses_as_it_is() -> None:
    params = SamplingParams(max_tokens=5, stop=("x",), logit_bias={3: 1.5})
    request = GenerateRequest(request_id="r", prompt_token_ids=[1, 2], sampling_params=params, n=2)
    caller = Caller(b"salt", 0.0, 600.0, 20.0)
    call = messages.decode_call(messages.encode(Call.of(request, True, caller)))
    assert (call.request, call.is_patient) == (request, True)
    there = call.caller()
    assert (there.cache_salt, there.timeout_s) == (b"salt", 20.0)


def test_deltas_cross_as_they_are() -> None:
    logprob = TokenLogprob(5, -0.5, 1, [(5, -0.5), (7, -2.0)])
    deltas = [ChoiceDelta(0, "a", [5], [logprob]), ChoiceDelta(1, "b", finish_reason="stop", stop_reason="\n")]
    assert messages.decode_reply(messages.encode(Deltas(deltas))) == Deltas(deltas)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("wrong", field="prompt"),
        EngineRestarting("it died"),
        DeadlineExceeded("late"),
        NanLogits("not finite"),
        Overloaded("full", retry_after_s=17),
    ],
)
def test_errors_cross_as_they_are(error: ZeroshotError) -> None:
    reply = messages.decode_reply(messages.encode(Failure.of(error)))
    assert isinstance(reply, Failure)
    there = reply.error()
    assert (type(there), there.message, there.field) == (type(error), error.message, error.field)
    assert getattr(there, "retry_after_s", None) == getattr(error, "retry_after_s", None)


def test_errors_that_only_one_side_can_make_keep_their_status() -> None:
    assert Failure.of(ContextLengthExceeded(1000, 100, 1024)).error().status == 400
    assert Failure("of_a_newer_version", "what is this").error().status == 500


def report(replica: str, status: EngineStatus = "ready", generation: int = 1, tokens: int = 0) -> Report:
    stats = EngineStats(num_running=2, num_kv_blocks=10, generation_tokens_total=tokens)
    return Report(replica, status, generation, generation - 1, stats)


def test_a_fleet_is_ready_when_one_engine_is() -> None:
    fleet = Fleet()
    fleet.update([report("a", "loading")])
    assert fleet.status == "loading"
    fleet.update([report("a"), report("b", "restarting")])
    assert (fleet.status, fleet.stats.num_kv_blocks) == ("ready", 10)
    fleet.update([report("a"), report("b")])
    assert (fleet.stats.num_running, fleet.stats.num_kv_blocks) == (4, 20)
    fleet.update([])
    assert (fleet.status, fleet.stats.num_kv_blocks) == ("restarting", 0)


def test_a_new_engine_is_seen() -> None:
    fleet = Fleet()
    fleet.update([report("a"), report("b")])
    before = fleet.engines
    fleet.update([report("b"), report("a")])
    assert fleet.engines == before
    fleet.update([report("a"), report("b", generation=2)])
    assert fleet.engines != before
    assert fleet.num_restarts == 1


def test_counters_never_go_back() -> None:
    fleet = Fleet()
    fleet.update([report("a", tokens=100), report("b", tokens=10)])
    assert fleet.totals["generation_tokens_total"] == 110
    fleet.update([report("b", tokens=11)])
    assert fleet.totals["generation_tokens_total"] == 111, "a has gone, its work has not"
    fleet.update([report("b", generation=2, tokens=1)])
    assert fleet.totals["generation_tokens_total"] == 112


def test_prompts_arrive_as_they_were(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "chat").mkdir(parents=True)
    (source / "one.yaml").write_text("name: one\n")
    (source / "chat" / "default.yaml").write_text("user: é\n")
    (source / "notes.txt").write_text("not a prompt")
    packed = pack(source)
    unpack(packed, target)
    assert {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*.yaml")} == {
        "one.yaml": "name: one\n",
        "chat/default.yaml": "user: é\n",
    }
    assert not (target / "notes.txt").exists()
    (source / "one.yaml").touch()
    assert pack(source) == packed, "the same files are no new version"


def test_prompts_that_can_not_be_deployed(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="is not a folder"):
        pack(tmp_path / "nowhere")
    (tmp_path / "large.yaml").write_bytes(random.Random(1).randbytes(MAX_PACKED_BYTES + 1))
    with pytest.raises(PromptFileError, match="at most"):
        pack(tmp_path)
