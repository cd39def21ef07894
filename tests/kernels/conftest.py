"""A paged KV cache made hostile on purpose, and attention as the formula says it: naive, in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

BLOCK_SIZE = 16
NUM_GUARD_BLOCKS = 5


@dataclass(frozen=True)
class PagedCache:
    key: Tensor  # [num_blocks, BLOCK_SIZE, n_head, head_dim]
    value: Tensor
    block_tables: Tensor  # [num_seqs, max_blocks] int64
    keys: list[Tensor]  # the same content per sequence: [context_len, n_head, head_dim]
    values: list[Tensor]


def _paged_cache(context_lens: list[int], n_head: int, head_dim: int, *, dtype: torch.dtype, seed: int) -> PagedCache:
    """Block tables in random order; every slot outside a context holds a huge finite value, padding points at such."""
    rng = torch.Generator().manual_seed(seed)
    poison = 1e30 if dtype == torch.float32 else 3e4
    num_blocks_of = [-(-n // BLOCK_SIZE) for n in context_lens]
    num_blocks = sum(num_blocks_of) + NUM_GUARD_BLOCKS
    order = torch.randperm(num_blocks, generator=rng).tolist()
    guard_block = order[-1]
    tables = torch.full((len(context_lens), max(num_blocks_of)), guard_block)
    caches = []
    for _ in range(2):
        caches.append(torch.full((num_blocks, BLOCK_SIZE, n_head, head_dim), poison, dtype=dtype))
    contents: tuple[list[Tensor], list[Tensor]] = ([], [])
    for i, context_len in enumerate(context_lens):
        blocks = [order.pop(0) for _ in range(num_blocks_of[i])]
        tables[i, : len(blocks)] = torch.tensor(blocks)
        for cache, content in zip(caches, contents, strict=True):
            rows = torch.randn(context_len, n_head, head_dim, generator=rng).to(dtype)
            for position in range(context_len):
                cache[blocks[position // BLOCK_SIZE], position % BLOCK_SIZE] = rows[position]
            content.append(rows)
    return PagedCache(caches[0], caches[1], tables, *contents)


def _naive_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """query: [query_len, n_head, head_dim], key and value: [context_len, ...]; the last query sees everything."""
    query_len, context_len = len(query), len(key)
    scores = torch.einsum("qhd,khd->hqk", query.double(), key.double()) * scale
    sees = torch.arange(context_len) <= torch.arange(context_len - query_len, context_len)[:, None]
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value.double())


@pytest.fixture(scope="session")
def paged_cache() -> Callable[..., PagedCache]:
    return _paged_cache


@pytest.fixture(scope="session")
def naive_attention() -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    return _naive_attention


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    def error(output: Tensor, expected: Tensor) -> float:
        return float((output.double() - expected).norm() / expected.norm())

    return error


TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


@pytest.fixture(params=TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def tolerance(dtype: torch.dtype) -> float:
    """On norm(output - expected) / norm(expected), expected in float64 from the same rounded inputs."""
    return TOLERANCES[dtype]


@pytest.fixture(scope="session")
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CXX, where it matters that the C++ kernels are compiled, and not how fast they are."""
    script = tmp_path_factory.mktemp("compiler") / "g++"
    script.write_text('#!/bin/sh\nexec g++ "$@" -O0\n')
    script.chmod(0o755)
    return str(script)
