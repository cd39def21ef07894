"""Keys and values of new tokens into the paged cache: the reference and the kernel write the same bits."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random
from zeroshot_kernels.kv_append.reference import kv_append_reference

SLOTS = [0, 130, 64, 191, 17]


def inputs(buffers, head_dim, dtype):
    memory = buffers.copy(random(3, 2, 2, 64, head_dim, seed=0, dtype=dtype))  # [block, head, {K, V}, token, dim]
    qkv = buffers.copy(random(5, 3 * 2 * head_dim, seed=1, dtype=dtype))
    return memory, *qkv.view(5, 3, 2, head_dim).unbind(1)[1:]


def test_the_reference_writes_each_token_to_its_slot_and_nothing_else():
    memory, key, value = inputs(GuardedBuffers(), 8, torch.float32)
    before = memory.clone()
    key_cache, value_cache = memory.permute(2, 0, 3, 1, 4)
    kv_append_reference(key, value, torch.tensor(SLOTS), key_cache, value_cache)
    for i, slot in enumerate(SLOTS):
        assert torch.equal(memory[slot // 64, :, 0, slot % 64], key[i])
        assert torch.equal(memory[slot // 64, :, 1, slot % 64], value[i])
    assert (memory != before).sum() == 2 * key.numel()


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [32, 64, 80])
def test_the_kernel_writes_the_same_bits(head_dim, dtype, index_dtype):
    kernel = kernel_of("kv_append")
    buffers = GuardedBuffers()
    memory, key, value = inputs(buffers, head_dim, dtype)
    expected = memory.clone()
    slots = buffers.copy(torch.tensor(SLOTS, dtype=index_dtype))
    kernel.kv_append(key, value, slots, *memory.permute(2, 0, 3, 1, 4))
    kv_append_reference(key, value, slots, *expected.permute(2, 0, 3, 1, 4))
    assert torch.equal(memory, expected)
    buffers.check()


def test_slots_outside_the_cache_are_skipped():
    kernel = kernel_of("kv_append")
    for append in (kernel.kv_append, kv_append_reference):
        buffers = GuardedBuffers()
        memory, key, value = inputs(buffers, 32, torch.float32)
        before = memory.clone()
        append(key, value, torch.tensor([-1, 192, 5, -1, 10**9]), *memory.permute(2, 0, 3, 1, 4))
        assert (memory != before).sum() == 2 * 2 * 32
        buffers.check()


def test_what_does_not_fit_is_refused_with_both_values():
    kernel = kernel_of("kv_append")
    memory, key, value = inputs(GuardedBuffers(), 32, torch.float32)
    caches = memory.permute(2, 0, 3, 1, 4)
    with pytest.raises(ValueError, match=r"5 tokens, 4 slots"):
        kernel.kv_append(key, value, torch.zeros(4, dtype=torch.int64), *caches)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        kernel.kv_append(key.half(), value.half(), torch.tensor(SLOTS), *caches)
