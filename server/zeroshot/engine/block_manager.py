"""Which KV blocks belong to whom, and which hold a prefix worth keeping. Plain Python; knows no tensors.

A block holds the keys and values of `block_size` consecutive tokens. A full block is known by a hash that chains over
everything before it, so equal hashes mean equal prefixes (PagedAttention, Kwon et al. 2023; prefix reuse as in vLLM and
nano-vllm). Each tenant's chain starts from its own salt, so that nobody can find out by timing what others have sent;
only pinned prompts, which are no secret, are found by everybody. A block that is not in use keeps its content until it
is needed: those that hold no prefix go first, then the least recently freed one, and pinned ones (the prompts of tasks)
only when nothing else is left.
"""

import hashlib
from array import array
from collections import OrderedDict
from dataclasses import dataclass

from zeroshot.engine.sequence import Sequence


@dataclass(slots=True)
class Block:
    ref_count: int = 0
    content_hash: bytes | None = None
    """Set once all its tokens are computed; only then may another sequence use it."""


def hash_block(parent_hash: bytes, token_ids: list[int]) -> bytes:
    """A 16-byte hash of a full block's tokens and of all tokens before it (through `parent_hash`)."""
    return hashlib.blake2b(array("q", token_ids).tobytes(), key=parent_hash, digest_size=16).digest()


class BlockManager:
    """Gives blocks out, takes them back, finds cached prefixes. Blocks free + blocks in use == num_blocks, always."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._blocks = [Block() for _ in range(num_blocks)]
        self._free = OrderedDict.fromkeys(range(num_blocks))  # in order of eviction
        self._free_pinned: OrderedDict[int, None] = OrderedDict()  # evicted after those
        self._pinned: OrderedDict[bytes, None] = OrderedDict()  # content hashes, the oldest pin first
        self._max_pinned = num_blocks // 4
        self._cached: dict[bytes, int] = {}  # content hash -> block, in use or free
        self._in_progress: dict[bytes, Sequence] = {}  # hash of a prompt block -> who is computing it

    @property
    def num_free_blocks(self) -> int:
        return len(self._free) + len(self._free_pinned)

    def num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def is_prefix_in_progress(self, sequence: Sequence) -> bool:
        """True if another sequence is just computing the next block this one needs: waiting beats repeating it."""
        hashes = self._prompt_hashes(sequence)
        num_cached = self._num_cached_blocks(hashes)
        return num_cached < len(hashes) and hashes[num_cached] in self._in_progress

    def num_blocks_needed(self, sequence: Sequence) -> int:
        """To the end of the sequence, and of those it will become: they share the prompt's full blocks."""
        num_blocks = self.num_blocks_for(sequence.max_num_tokens)
        return num_blocks + (sequence.width - 1) * (num_blocks - sequence.num_prompt_tokens // self.block_size)

    def can_allocate(self, sequence: Sequence) -> bool:
        hashes = self._prompt_hashes(sequence)
        cached = [self._cached[content_hash] for content_hash in hashes[: self._num_cached_blocks(hashes)]]
        num_revived = sum(self._blocks[block_id].ref_count == 0 for block_id in cached)
        num_new = self.num_blocks_needed(sequence) - len(cached)
        return num_new + num_revived <= self.num_free_blocks

    def allocate(self, sequence: Sequence) -> None:
        """Reserve every block the sequence can ever need, cached ones first, so that it never has to be preempted."""
        hashes = self._prompt_hashes(sequence)
        num_cached = self._num_cached_blocks(hashes)
        for content_hash in hashes[:num_cached]:
            sequence.block_table.append(self._take(self._cached[content_hash]))
        for content_hash in hashes[num_cached:]:
            self._in_progress.setdefault(content_hash, sequence)
        num_new = self.num_blocks_needed(sequence) - num_cached
        # Sorted, because blocks that follow one another are read in place by attention on a CPU.
        sequence.block_table += sorted(self._take_new() for _ in range(num_new))
        sequence.num_committed_blocks = num_cached
        sequence.num_computed_tokens = sequence.num_cached_tokens = num_cached * self.block_size

    def fork(self, sequence: Sequence, children: list[Sequence]) -> None:
        """Give the children the blocks that the sequence holds for them. Its prompt has just been computed."""
        num_own = self.num_blocks_for(sequence.max_num_tokens)
        num_shared = sequence.num_prompt_tokens // self.block_size
        held = sequence.block_table[num_own:]
        del sequence.block_table[num_own:]
        for child in children:
            child.block_table += [self._take(block_id) for block_id in sequence.block_table[:num_shared]]
            child.block_table += held[: num_own - num_shared]
            del held[: num_own - num_shared]
        sequence.width = 1

    def regroup(self, sequences: list[Sequence], parents: list[int]) -> list[tuple[int, int]]:
        """Let sequence i go on from what sequence `parents[i]` has computed: as many tokens as all the others.

        Full blocks are shared. Returns the (source, target) of the blocks to copy, all at once: those half full. Takes
        no new block: each sequence keeps those that it holds for what is still to come.
        """
        num_computed = sequences[0].num_computed_tokens
        num_full = num_computed // self.block_size
        old = [sequence.block_table[:num_full] for sequence in sequences]
        hashes = [(sequence.block_hashes[:num_full], sequence.has_private_hashes) for sequence in sequences]
        committed = [min(sequence.num_committed_blocks, num_full) for sequence in sequences]
        copies = []
        for sequence, parent in zip(sequences, parents, strict=True):
            if sequence is not sequences[parent] and num_computed % self.block_size:
                copies.append((sequences[parent].block_table[num_full], sequence.block_table[num_full]))
        for sequence, parent in zip(sequences, parents, strict=True):
            sequence.block_table[:num_full] = [self._take(block_id) for block_id in old[parent]]
            sequence.block_hashes[:num_full], sequence.has_private_hashes = hashes[parent]
            sequence.num_committed_blocks = committed[parent]
        for block_ids in old:
            self._give_back(block_ids)
        return copies

    def commit(self, sequence: Sequence) -> None:
        """Make blocks that have become full of computed tokens available to others. Called after each step."""
        num_full = sequence.num_computed_tokens // self.block_size
        self._extend_hashes(sequence, num_full)
        for index in range(sequence.num_committed_blocks, num_full):
            content_hash = sequence.block_hashes[index]
            self._stop_progress(content_hash, sequence)
            if content_hash not in self._cached:
                block_id = sequence.block_table[index]
                self._blocks[block_id].content_hash = content_hash
                self._cached[content_hash] = block_id
        sequence.num_committed_blocks = max(num_full, sequence.num_committed_blocks)

    def free(self, sequence: Sequence) -> None:
        """Take all blocks back. The last ones are evicted first: a prefix's beginning is what others share."""
        for content_hash in sequence.block_hashes[sequence.num_committed_blocks :]:
            self._stop_progress(content_hash, sequence)
        self._give_back(sequence.block_table)
        sequence.block_table.clear()

    def _give_back(self, block_ids: list[int]) -> None:
        for block_id in reversed(block_ids):
            block = self._blocks[block_id]
            block.ref_count -= 1
            if block.ref_count > 0:
                continue
            if block.content_hash in self._pinned:
                self._free_pinned[block_id] = None
                continue
            self._free[block_id] = None
            if block.content_hash is None:
                self._free.move_to_end(block_id, last=False)

    def pin(self, sequence: Sequence) -> None:
        """Evict the blocks of this prompt last. Pins beyond a quarter of all blocks lapse, the oldest first."""
        for content_hash in sequence.block_hashes[: sequence.num_prompt_tokens // self.block_size]:
            self._pinned[content_hash] = None
            self._pinned.move_to_end(content_hash)
            # The last block's content may have been there before: the sequence had to run it all the same.
            self._move(content_hash, self._free, self._free_pinned)
        while len(self._pinned) > self._max_pinned:
            lapsed, _ = self._pinned.popitem(last=False)
            self._move(lapsed, self._free_pinned, self._free)

    def _move(self, content_hash: bytes, source: "OrderedDict[int, None]", target: "OrderedDict[int, None]") -> None:
        """The block with this content, if it is in `source`."""
        block_id = self._cached.get(content_hash)
        if block_id is not None and block_id in source:
            del source[block_id]
            target[block_id] = None

    def forget(self, sequence: Sequence, *, num_trusted: int = 0) -> list[int]:
        """Take the sequence's blocks out of the prefix cache, except for the first `num_trusted`.

        Returns those of them that no other sequence uses.
        """
        suspects = sequence.block_table[num_trusted:]
        for block_id in suspects:
            block = self._blocks[block_id]
            if block.content_hash is not None:
                del self._cached[block.content_hash]
                block.content_hash = None
        return [block_id for block_id in suspects if self._blocks[block_id].ref_count == 1]

    def _take(self, block_id: int) -> int:
        self._free.pop(block_id, None)
        self._free_pinned.pop(block_id, None)
        self._blocks[block_id].ref_count += 1
        return block_id

    def _take_new(self) -> int:
        block_id = next(iter(self._free or self._free_pinned))
        block = self._blocks[block_id]
        if block.content_hash is not None:
            del self._cached[block.content_hash]
            block.content_hash = None
        return self._take(block_id)

    def _stop_progress(self, content_hash: bytes, sequence: Sequence) -> None:
        if self._in_progress.get(content_hash) is sequence:
            del self._in_progress[content_hash]

    def _num_cached_blocks(self, hashes: list[bytes]) -> int:
        return next((i for i, content_hash in enumerate(hashes) if content_hash not in self._cached), len(hashes))

    def _prompt_hashes(self, sequence: Sequence) -> list[bytes]:
        """Hashes of the prompt's full blocks that may come from the cache."""
        num_blocks = sequence.max_cacheable_tokens // self.block_size
        self._extend_hashes(sequence, num_blocks)
        return sequence.block_hashes[:num_blocks]

    def _extend_hashes(self, sequence: Sequence, num_blocks: int) -> None:
        hashes = sequence.block_hashes
        while len(hashes) < num_blocks:
            start = len(hashes) * self.block_size
            parent_hash = hashes[-1] if hashes else b""
            token_ids = sequence.token_ids[start : start + self.block_size]
            content_hash = hash_block(parent_hash, token_ids)
            if sequence.cache_salt and not sequence.has_private_hashes and content_hash not in self._pinned:
                sequence.has_private_hashes = True
                content_hash = hash_block(parent_hash + sequence.cache_salt, token_ids)
            hashes.append(content_hash)
