"""The fused decode path as Triton kernels, tried on its device before it is trusted. Only a GPU's model imports this.

All or none: where one of them does not work, small batches take the plain path as large ones do, and the state of
`fused_decode` in `GET /health` says why.
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import MAX_FUSED_ROWS, FoldedLinear, FusedOps
from zeroshot.model.linear import TANH_GELUS
from zeroshot.model.triton_ops import (
    PROBE_BLOCK_SIZE,
    PROBE_BLOCKS,
    PROBE_LENS,
    TOLERANCES,
    first_line,
    load_kernel,
    max_context_len,
    probe_scales,
    probe_tables,
    relative_error,
)
from zeroshot.settings import FusedDecode

logger = logging.getLogger(__name__)

_PDL_CAPABILITY = (9, 0)
_CHAINED_STEPS = 4
_CHAINED_LAYERS = 12  # in each of them
_REPLAYS = 10
_PROBE_VOCAB_SIZE = 1500  # several tiles of the LM head, the last in part


def triton_fused_ops(
    config: GPT2Config,
    *,
    wanted: FusedDecode,
    kernels: dict[str, str],
    dtype: torch.dtype,
    device: torch.device,
    kv_dtype: torch.dtype | None = None,
) -> tuple[FusedOps | None, str | None]:
    """The ops, or None if the plain path runs; and the state that `GET /health` shows, None if nobody wanted them.

    kernels: the states of the plain path's ops. "auto" asks for a GPU that starts a kernel before the one ahead has
    ended (PDL); "on" takes any.
    """
    if wanted == "off":
        return None, None
    use_pdl = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _PDL_CAPABILITY
    reason = _why_not(config, wanted, kernels, use_pdl)
    if reason is None:
        try:
            return _tried(config, use_pdl, dtype, device, kv_dtype), "triton"
        except Exception as error:  # whatever the compiler raises: the plain path does the same work
            reason = f"{type(error).__name__}: {first_line(error)}"
            logger.warning("slower at small batches: the fused decode path does not work here: %s", reason)
    return None, f"plain path: {reason}"


def _why_not(config: GPT2Config, wanted: FusedDecode, kernels: dict[str, str], use_pdl: bool) -> str | None:
    if config.activation_function not in TANH_GELUS:
        return f"activation_function is {config.activation_function}"
    if any(state != "triton" for state in kernels.values()):
        return "other ops run as references"
    if wanted == "auto" and not use_pdl:
        return "needs compute capability 9.0"
    return None


def _tried(
    config: GPT2Config, use_pdl: bool, dtype: torch.dtype, device: torch.device, kv_dtype: torch.dtype | None
) -> FusedOps:
    """Raises whatever a kernel raises, or ArithmeticError."""
    ops = fused_kernels(config, use_pdl, device)
    for num_rows in (1, 2):  # one row has code of its own
        layer = _Probe(config, num_rows, dtype, device, kv_dtype)
        # What is drawn may turn on a rounding. The ops that draw were tried as ops of the plain path.
        error = relative_error(layer.run(ops, 1)[:3], layer.run(FusedOps(), 1)[:3])
        if not error <= TOLERANCES[dtype]:
            raise ArithmeticError(f"its result is off by {error:.1e}")
        if not use_pdl:
            continue
        # A kernel that doesn't wait for the one ahead is right when it is alone.
        chain = (_CHAINED_LAYERS, _CHAINED_STEPS)
        in_turn = layer.run(fused_kernels(config, False, device), *chain)
        for early in _replays(partial(layer.run, ops, *chain), _REPLAYS):
            if any(not torch.equal(a, b) for a, b in zip(early, in_turn, strict=True)):
                raise ArithmeticError("its kernels give something else when each starts before the one ahead has ended")
    return ops


def _replays(function: Callable[[], list[Tensor]], times: int) -> Iterator[list[Tensor]]:
    """What it gives as a CUDA graph, each time: launched one by one, kernels wait for the host, not for each other."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    for _ in range(times):
        graph.replay()
        yield results


def fused_kernels(config: GPT2Config, use_pdl: bool, device: torch.device) -> FusedOps:
    """Attention's splits get memory of their own: captured graphs need it at an address that stays."""
    results = importlib.import_module("zeroshot_kernels.split_attention.kernel").SplitResults.allocate(
        MAX_FUSED_ROWS, config.n_head, config.head_dim, max_context_len(config), device
    )
    options: dict[str, dict[str, Any]] = {"split_attention": {"out": results}}
    return FusedOps(
        **{
            name: partial(load_kernel(name), use_pdl=use_pdl, **options.get(name, {}))
            for name in FusedOps.__dataclass_fields__
        }
    )


class _Probe:
    """A model of one layer as wide as the model's, of small random weights, and the first sequences of PROBE_LENS."""

    def __init__(
        self,
        config: GPT2Config,
        num_rows: int,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: torch.dtype | None,
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        d, inner = config.n_embd, config.n_inner
        # As wide as the model's, for which the kernels are compiled. No context reaches what is added.
        blocks = -(-config.n_positions // PROBE_BLOCK_SIZE)
        tables = probe_tables(device)[:num_rows]
        self.tables = F.pad(tables, (0, max(0, blocks - tables.shape[1])))
        max_len = self.tables.shape[1] * PROBE_BLOCK_SIZE
        self.wte, self.wpe = randn(_PROBE_VOCAB_SIZE, d), randn(max_len, d)
        self.nothing = torch.zeros(num_rows, d, dtype=dtype, device=device)
        self.norm = norm = (randn(d), randn(d), config.layer_norm_epsilon)
        self.qkv = FoldedLinear.of(*norm, randn(3 * d, d) * d**-0.5, randn(3 * d))
        self.attn_proj = (randn(d, d) * d**-0.5, randn(d))
        self.fc = FoldedLinear.of(*norm, randn(inner, d) * d**-0.5, randn(inner))
        self.fc_proj = (randn(d, inner) * inner**-0.5, randn(d))
        self.caches = randn(PROBE_BLOCKS, config.n_head, 2, PROBE_BLOCK_SIZE, config.head_dim).to(kv_dtype or dtype)
        self.scales = probe_scales(kv_dtype, config.n_head, device)
        self.temperatures = torch.tensor([20.0, 0.0], device=device)[:num_rows]
        self.seeds = torch.arange(5, 5 + num_rows, device=device)
        in_page = torch.arange(PROBE_BLOCK_SIZE, dtype=torch.int32, device=device)
        self.slot_table = (self.tables[:, :, None] * PROBE_BLOCK_SIZE + in_page).flatten(1)
        lens = torch.tensor(PROBE_LENS[:num_rows], dtype=torch.int32, device=device)
        newest = lens.long() - 1
        slots = self.slot_table.gather(1, newest[:, None]).squeeze(1)
        self.limits = newest + _CHAINED_STEPS
        self.state = (self.seeds, newest, lens.long(), lens, slots)

    def run(self, ops: FusedOps, num_layers: int, num_steps: int = 1) -> list[Tensor]:
        """Decode steps of the same layer several times over, each from what the one before drew.

        Returns the residual, the cache, the hidden states that the last token was drawn from; what was drawn; the state
        that the next step would find.
        """
        memory = self.caches.clone()
        key, value = memory.permute(2, 0, 3, 1, 4)
        tokens, positions, draw_positions, lens, slots = state = [tensor.clone() for tensor in self.state]
        # Rows of 16 bytes: what lies at other addresses has kernels of its own, and a graph can't wait for a compiler.
        all_drawn = torch.zeros(num_steps, 2, dtype=torch.int64, device=tokens.device)[:, : len(tokens)]
        for drawn in all_drawn:
            residual = ops.embedding(tokens, positions, self.wte, self.wpe)
            for _ in range(num_layers):
                query = ops.ln_qkv_append(residual, *self.qkv, slots, key, value, *self.scales)
                splits = ops.split_attention(query, key, value, self.tables, lens, 0.125, *self.scales)
                residual = ops.merge_projection(*splits, lens, *self.attn_proj, residual)
                inner = ops.ln_fc_gelu(residual, *self.fc)
                residual = ops.projection(inner, *self.fc_proj, residual)
            hidden, _ = ops.layer_norm(self.nothing, residual, *self.norm)
            seeds = (self.seeds, self.seeds, draw_positions)
            arguments = (hidden, self.wte, self.temperatures, *seeds)
            token_ids, _, is_valid = ops.lm_head_sampling(*arguments, with_logprobs=False)
            advanced = (self.limits, *state[:4], self.slot_table, slots, drawn)
            ops.advance(token_ids, is_valid, None, *advanced)
        return [residual, memory.float(), hidden, all_drawn, *state]
