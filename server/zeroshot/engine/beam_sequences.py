"""The sequences of a beam search: first one that runs the prompt, then one for each beam.

`beams.py` decides which texts go on; here the sequences, their blocks and the KV cache follow. Called by `engine.py`.
"""

from dataclasses import replace

from zeroshot.engine.beams import BeamSearch, Continuation
from zeroshot.engine.scheduler import Scheduler
from zeroshot.engine.sequence import Sequence
from zeroshot.model.gpt2 import KVCache
from zeroshot.types import BeamParams, GenerateRequest


def begin_search(prompt: Sequence, request: GenerateRequest, params: BeamParams, eos_token_id: int) -> None:
    """Make `prompt` the first beam of a new search. It is admitted with room for all of them."""
    sampling = request.sampling_params
    ends = {*sampling.stop_token_ids} | (set() if sampling.ignore_eos else {eos_token_id})
    prompt.width = params.num_beams
    prompt.beams = BeamSearch(
        params, num_returned=request.n, max_tokens=sampling.max_tokens, stop_token_ids=frozenset(ends)
    )


def continue_search(
    search: BeamSearch,
    beams: list[Sequence],
    continuations: list[Continuation],
    scheduler: Scheduler,
    kv_cache: KVCache,
) -> None:
    """Sequence i becomes continuation i: what its parent has computed, and the new token.

    Changes `beams`: where only the prompt has run so far, the others are appended.
    """
    if len(beams) == 1:
        beams += _fork(beams[0], search.num_beams - 1, scheduler)
    parents = [continuation.beam for continuation in continuations]
    kv_cache.copy_blocks(scheduler.block_manager.regroup(beams, parents))
    token_ids = [[*beams[c.beam].token_ids, c.token_id] for c in continuations]
    for sequence, new in zip(beams, token_ids, strict=True):
        sequence.token_ids = new


def _fork(prompt: Sequence, num_children: int, scheduler: Scheduler) -> list[Sequence]:
    children = [
        replace(prompt, choice_index=index + 1, width=1, block_table=[], block_hashes=[], num_committed_blocks=0)
        for index in range(num_children)
    ]
    scheduler.fork(prompt, children)
    return children
