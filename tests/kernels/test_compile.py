"""Every kernel and launch configuration compiles for an A100 and an H100, with no GPU, and hardly spills."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zeroshot_kernels

OPS_FOLDER = Path(zeroshot_kernels.__file__).parent
OPS = sorted(path.parent.name for path in OPS_FOLDER.glob("*/kernel.py"))
SHARED_BYTES_LIMITS = {80: 99 * 1024, 90: 227 * 1024}
"""An A100 has 163 KB; its kernels are those of the cards for desktops too (8.6, 8.9), which have 99."""
SPILLED_BYTES_LIMIT = 192
"""By each of Triton 3.6 to 3.9: what spills 172 bytes by 3.7 spills none by the others."""
REGISTERS = 65536
"""Of an SM, in all of 8.0 to 9.0."""

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install 'zeroshot[triton]'"
    ),
    pytest.mark.timeout(2400),  # the first test compiles all of them: three minutes on two idle cores
]


@functools.cache
def compiled_launches():
    """One run for all ops. Not in this process: here triton was imported as an interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(OPS_FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    script = Path(__file__).with_name("compile_launches.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("op", OPS)
def test_compiles_and_fits(op):
    launches = [launch for launch in compiled_launches() if launch["op"] == op]
    assert {launch["arch"] for launch in launches} == {80, 90}
    for launch in launches:
        assert launch["shared_bytes"] <= SHARED_BYTES_LIMITS[launch["arch"]], launch
        assert launch["spilled_bytes"] <= SPILLED_BYTES_LIMIT, launch


def test_loads_that_must_overlap_with_arithmetic_are_asynchronous():
    """And some are still on their way when a tile is waited for: only so do they overlap."""
    pipelined = {"decode_attention_kernel", "prefill_attention_kernel", "logprobs_kernel", "lm_head_sampling_kernel"}
    found = [launch for launch in compiled_launches() if launch["kernel"] in pipelined]
    assert {launch["kernel"] for launch in found} == pipelined
    for launch in found:
        loads_tiles_together = launch["constants"].get("TILES", 1) > 1
        assert ("cp.async" in launch["instructions"]) != loads_tiles_together, launch
        assert launch["copies_in_flight"] > 0 or loads_tiles_together, launch


def test_programs_that_load_tiles_together_leave_room_for_others():
    """They wait for their own loads, and only other programs on the SM have something to do meanwhile."""
    found = [launch for launch in compiled_launches() if launch["constants"].get("TILES", 1) > 1]
    assert {launch["kernel"] for launch in found} == {"decode_attention_kernel"}
    for launch in found:
        assert launch["registers"] * 32 * launch["options"]["num_warps"] * 4 <= REGISTERS, launch


def test_half_precision_uses_tensor_cores_and_fp32_stays_exact():
    for launch in compiled_launches():
        assert "tf32" not in launch["instructions"], launch
        if launch["kernel"] in {"prefill_attention_kernel", "logprobs_kernel", "lm_head_sampling_kernel"}:
            is_half = bool({"*bf16", "*fp16"} & set(launch["pointers"]))
            assert is_half == bool({"mma.sync", "wgmma"} & set(launch["instructions"])), launch


WEIGHTS = {"weight_ptr", "bias_ptr", "ln_weight_ptr", "weight_sums_ptr"}
CONTEXT = {"context_lens_ptr"}
"""With block tables and the tokens of earlier steps, older than the step's first kernel, which starts in turn."""
IN_SUCCESSION = {
    "embedding_kernel": set(),
    "ln_qkv_append_kernel": WEIGHTS | {"key_scales_ptr", "value_scales_ptr"},
    "split_attention_kernel": CONTEXT | {"key_cache_ptr", "value_cache_ptr", "block_tables_ptr", "key_scales_ptr"},
    "merge_projection_kernel": {"weight_ptr", "bias_ptr", "context_lens_ptr"},
    "ln_fc_gelu_kernel": WEIGHTS,
    "projection_kernel": {"weight_ptr", "bias_ptr"},
    "layer_norm_kernel": {"weight_ptr", "bias_ptr"},
    "lm_head_sampling_kernel": set(),
    "choose_kernel": set(),
    "advance_kernel": CONTEXT | {"limits_ptr", "positions_ptr", "draw_positions_ptr", "slot_table_ptr"},
}
"""The kernels that start before the one ahead has ended, and what they load before they wait for it: all of it."""


@pytest.mark.parametrize("kernel", IN_SUCCESSION)
def test_a_kernel_that_starts_early_touches_only_what_is_older_than_the_step_before_it_waits(kernel):
    launches = [launch for launch in compiled_launches() if launch["kernel"] == kernel]
    early = [launch for launch in launches if launch["options"].get("launch_pdl")]
    assert {launch["arch"] for launch in early} == {90}
    for launch in early:
        is_first_of_step = kernel == "embedding_kernel"  # once it lets others start, the step before is complete
        found = (launch["waits"], launch["launches_first"], launch["stores_before_wait"])
        assert found == (1, not is_first_of_step, 0), launch
        scales = {"key_scales_ptr", "value_scales_ptr"} if "*fp8e4nv" not in launch["pointers"] else set()
        loaded = set(launch["loaded_before_wait"])
        if kernel != "split_attention_kernel" or loaded != CONTEXT:  # a split of several tiles loads none of them early
            assert loaded == IN_SUCCESSION[kernel] - scales, launch
        assert set(launch["loaded_after_wait"]) & WEIGHTS == set(), launch
    if kernel == "split_attention_kernel":
        assert any(set(launch["loaded_before_wait"]) > CONTEXT for launch in early)
    others = [launch for launch in compiled_launches() if not launch["options"].get("launch_pdl")]
    assert [launch for launch in others if launch["waits"] or launch["launches_first"]] == []


def test_no_program_of_those_kernels_takes_more_than_half_an_sm():
    """Its registers, threads and shared memory: or none of the next grid could be there before it has ended."""
    for launch in compiled_launches():
        if launch["options"].get("launch_pdl"):
            threads = 32 * launch["options"]["num_warps"]
            assert launch["registers"] * threads <= 2**16 // 2, launch
            assert threads <= 2048 // 2, launch
            assert launch["shared_bytes"] <= SHARED_BYTES_LIMITS[90] // 2, launch


def test_all_programs_of_those_kernels_start_at_once_on_an_h200():
    """Those that start when others have ended ask for their weights only then, and so does the whole next grid."""
    kernels = {"ln_qkv_append_kernel", "split_attention_kernel", "merge_projection_kernel", "ln_fc_gelu_kernel"}
    found = [launch for launch in compiled_launches() if launch["kernel"] in kernels and "*bf16" in launch["pointers"]]
    early = [launch for launch in found if launch["options"].get("launch_pdl")]
    assert {launch["kernel"] for launch in early} == kernels
    for launch in early:
        registers = -(-launch["registers"] // 8) * 8 * 32 * launch["options"]["num_warps"]
        assert launch["programs"] <= 132 * (REGISTERS // registers), launch


def test_the_lm_head_asks_for_its_weights_before_it_waits():
    for launch in compiled_launches():
        is_early = launch["kernel"] == "lm_head_sampling_kernel" and bool(launch["options"].get("launch_pdl"))
        assert (launch["prefetches_before_wait"] > 0) == is_early, launch
