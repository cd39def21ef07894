"""One sequence's keys or values out of the paged cache, for the attention references."""

from torch import Tensor


def sequence_tokens(cache: Tensor, block_table: list[int], num_tokens: int) -> Tensor:
    """cache: [num_blocks, block_size, n_head, head_dim]; block_table: block ids, at least as many as are needed.

    Returns [num_tokens, n_head, head_dim]: a view where the blocks follow one another, as the block manager hands them
    out when it can; a copy where they don't. The copy is four times as dear as the attention itself.
    """
    num_blocks = -(-num_tokens // cache.shape[1])
    first, needed = block_table[0], block_table[:num_blocks]
    is_one_run = needed == list(range(first, first + num_blocks))
    blocks = cache[first : first + num_blocks] if is_one_run else cache[needed]
    return blocks.flatten(0, 1)[:num_tokens]
