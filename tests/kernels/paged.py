"""Contexts in pages, as attention's kernels find them."""

import torch


class PagedCache:
    """Pages in random order and in the CUDA runner's layout; whatever is outside the contexts is NaN."""

    def __init__(self, buffers, context_lens, n_head, head_dim, *, block_size=64, dtype=torch.float32, seed=0):
        rng = torch.Generator().manual_seed(seed)
        num_blocks_of = [-(-n // block_size) for n in context_lens]
        num_blocks = sum(num_blocks_of) + 3
        order = torch.randperm(num_blocks, generator=rng).tolist()
        memory = buffers.poisoned(num_blocks, n_head, 2, block_size, head_dim, dtype=dtype)
        self.key, self.value = memory.permute(2, 0, 3, 1, 4)
        tables = torch.full((len(context_lens), max(1, *num_blocks_of)), order[-1], dtype=torch.int32)
        self.keys, self.values = [], []
        for i, context_len in enumerate(context_lens):
            blocks = [order.pop(0) for _ in range(num_blocks_of[i])]
            tables[i, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
            for cache, contents in ((self.key, self.keys), (self.value, self.values)):
                rows = torch.randn(context_len, n_head, head_dim, generator=rng).to(dtype)
                for j, block in enumerate(blocks):
                    page = rows[j * block_size : (j + 1) * block_size]
                    cache[block, : len(page)] = page
                contents.append(rows)
        self.block_tables = buffers.copy(tables)
        self.context_lens = buffers.copy(torch.tensor(context_lens, dtype=torch.int32))

    def arguments(self):
        return self.key, self.value, self.block_tables, self.context_lens

    def expected(self, query, scale):
        rows = []
        for q, key, value in zip(query.double(), self.keys, self.values, strict=True):
            weights = (torch.einsum("hd,nhd->hn", q, key.double()) * scale).softmax(-1)
            rows.append(torch.einsum("hn,nhd->hd", weights, value.double()))
        return torch.stack(rows)
