"""KV append in PyTorch: the oracle for the kernel."""

from torch import Tensor

from zeroshot_kernels.paged_cache import indexable, to_e4m3


def kv_append_reference(
    key: Tensor,
    value: Tensor,
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
) -> None:
    """key_cache[slot // block_size, slot % block_size] = key, and values alike, in place.

    key, value: [num_tokens, n_head, head_dim]; slot_mapping: [num_tokens] int32 or int64, all different; a slot that is
    not in the cache is skipped (padding rows of a captured graph). key_cache, value_cache: [num_blocks, block_size,
    n_head, head_dim], any strides. key_scales, value_scales: [n_head], if the caches are in FP8: see `to_e4m3`.
    """
    if key_scales is not None and value_scales is not None:
        key, value = to_e4m3(key, key_scales), to_e4m3(value, value_scales)
    num_blocks, block_size = key_cache.shape[:2]
    kept = (slot_mapping >= 0) & (slot_mapping < num_blocks * block_size)
    slots = slot_mapping[kept].long()
    for cache, rows in ((key_cache, key), (value_cache, value)):
        indexable(cache)[slots // block_size, slots % block_size] = indexable(rows)[kept]
