"""benchmarks/kv_quality: the same model costs nothing, one with an FP8 cache a little; and what the result is of."""

import json

import pytest
import torch

from benchmarks.command import DEMO, RESULTS
from benchmarks.kv_quality import GATE_PERCENT, models
from benchmarks.quality import compare, weights_sha256

TOKENS = torch.randint(0, 50000, (200,), generator=torch.Generator().manual_seed(0)).tolist()


def test_fp8_changes_something_and_the_same_model_nothing():
    both = models(DEMO, "cpu", "fp32")
    same = compare({"plain": both["plain"], "again": both["plain"]}, TOKENS, 2, 64)
    assert same["perplexity_change_percent"] == 0
    assert same["greedy_agreement_percent"] == 100
    found = compare(both, TOKENS, 2, 64)
    assert found["perplexity"]["plain"] == same["perplexity"]["plain"]
    assert 0 < abs(found["perplexity_change_percent"]) < 3
    assert found["greedy_agreement_percent"] > 90


def test_the_committed_result_is_of_the_bundled_weights_and_passes_its_gate():
    path = RESULTS / "kv_quality.json"
    if not path.exists():
        pytest.skip("no result of benchmarks.kv_quality is committed")
    result = json.loads(path.read_text())
    assert result["weights_sha256"] == weights_sha256(DEMO)
    assert result["perplexity_change_percent"] <= GATE_PERCENT
