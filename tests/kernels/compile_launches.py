"""Compiles every launch of the functions `launch_<op>` for sm_80 and sm_90, with no GPU: a script for test_compile.py.

A launcher is called on CPU tensors; instead of running, the kernel is compiled for each target from the very arguments
it was launched with, specialised as Triton does at run time. Prints one JSON line a kernel, configuration and target.
"""

import contextlib
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from ptx import dependences
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TARGETS = [GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32)]
_POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.bool: "*i1",
    torch.float8_e4m3fn: "*fp8e4nv",
}
_INSTRUCTIONS = ("cp.async", "mma.sync", "wgmma", "tf32", "mul.hi.u64")
_WAIT_GROUP = re.compile(r"cp\.async\.wait_group\s+(\d+)")
_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "launch_pdl")
_ONLY_FUSED = {
    f"{op}_kernel" for op in ("ln_qkv_append", "split_attention", "merge_projection", "ln_fc_gelu", "projection")
}
"""Of a fused decode step and of nothing else, which asks for `launch_pdl` wherever that is there (triton_fused.py)."""


def ast_source(kernel: JITFunction, args: tuple[Any, ...], options: dict[str, Any]) -> ASTSource:
    """The launch as the compiler is given it: types, constants, and what is divisible by 16."""
    values = dict(zip(kernel.arg_names, args, strict=False)) | options
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        is_special = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (is_special and type(value) is int and value == 1):
            signature[parameter.name], constants[(index,)] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = _POINTERS[value.dtype]
            is_aligned = True  # PyTorch's CUDA allocator aligns to 512 bytes
        elif isinstance(value, float):
            signature[parameter.name], is_aligned = "fp32", False
        else:
            signature[parameter.name], is_aligned = "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
        if is_aligned and is_special:
            attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def compile_instead_of_running(report: Callable[[dict[str, Any]], None]) -> None:
    done: set[str] = set()

    def run(kernel: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> None:
        compiler_options = {name: options.pop(name) for name in _OPTIONS if name in options}
        source = ast_source(kernel, args, options)
        for target in TARGETS:
            if target.arch < 90 and (compiler_options.get("launch_pdl") or "*fp8e4nv" in source.signature.values()):
                continue  # neither is there before
            if target.arch >= 90 and kernel.__name__ in _ONLY_FUSED and not compiler_options.get("launch_pdl"):
                continue  # never launched
            key = f"{kernel.__name__}{source.signature}{source.constants}{source.attrs}{compiler_options}{target}"
            if key in done:
                continue
            done.add(key)
            with contextlib.redirect_stdout(io.StringIO()) as ptxas_log:
                compiled = triton.compile(source, target=target, options=compiler_options)
            ptx = compiled.asm["ptx"]
            parameters = [name for name, kind in source.signature.items() if kind != "constexpr"]
            depends = dependences(ptx, parameters)
            report(
                {
                    "kernel": kernel.__name__,
                    "arch": target.arch,
                    "pointers": sorted({kind for kind in source.signature.values() if kind.startswith("*")}),
                    "constants": {kernel.arg_names[i]: v for (i,), v in source.constants.items() if v not in (None, 1)},
                    "options": compiler_options,
                    "programs": math.prod(grid),
                    "shared_bytes": compiled.metadata.shared,
                    "instructions": [name for name in _INSTRUCTIONS if name in ptx],
                    "copies_in_flight": max(map(int, _WAIT_GROUP.findall(ptx)), default=0),
                    "waits": depends.waits,
                    "launches_first": depends.launches_first,
                    "loaded_before_wait": sorted(depends.loaded_before) if depends.waits else [],
                    "loaded_after_wait": sorted(depends.loaded_after),
                    "prefetches_before_wait": depends.prefetches_before if depends.waits else 0,
                    "stores_before_wait": depends.stores_before if depends.waits else 0,
                    **_registers(ptxas_log.getvalue() or _ptxas_log(ptx, target.arch)),
                }
            )

    JITFunction.run = run


def _ptxas_log(ptx: str, arch: int) -> str:
    """Of a kernel that Triton's cache had: it prints what ptxas says only when it runs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        name = f"sm_{arch}a" if arch == 90 else f"sm_{arch}"
        command = [get_ptxas(arch).path, "-v", f"--gpu-name={name}", str(path), "-o", os.devnull]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def _registers(log: str) -> dict[str, int]:
    """What ptxas says when asked to be verbose: registers a thread, bytes spilled to local memory."""
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", log))
    return {"registers": max(int(n) for n in re.findall(r"Used (\d+) registers", log)), "spilled_bytes": spilled}


# The launches: GPT-2's shapes, every row of every launch table, every dtype the server runs in.

HALF, FULL = torch.bfloat16, torch.float32
DTYPES = (HALF, torch.float16, FULL)
VOCAB_SIZE = 50257


def ints(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def longs(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def qkv_and_caches(head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the CUDA runner has them: a fused projection's output, and pages of [n_head, {K, V}, 64, head_dim]."""
    query, key, value = torch.zeros(32, 3, 12, head_dim, dtype=dtype).unbind(1)
    key_cache, value_cache = torch.zeros(3, 12, 2, 64, head_dim, dtype=dtype).permute(2, 0, 3, 1, 4)
    return query, key, value, key_cache, value_cache


def launch_decode_attention() -> None:
    from zeroshot_kernels.decode_attention.kernel import decode_attention

    for dtype, head_dim in [*itertools.product(DTYPES, (64,)), *itertools.product((HALF, FULL), (32, 80, 128))]:
        query, _, _, *caches = qkv_and_caches(head_dim, dtype)
        decode_attention(query, *caches, ints(32, 16), ints(32), 0.125)
    for dtype, head_dim in [(HALF, 64), (HALF, 80), (FULL, 64)]:
        query, *_ = qkv_and_caches(head_dim, dtype)
        key_cache, value_cache, *scales = fp8_caches(head_dim)
        decode_attention(query, key_cache, value_cache, ints(32, 16), ints(32), 0.125, *scales)


def fp8_caches(head_dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """And their scales."""
    memory = torch.zeros(3, 12, 2, 64, head_dim, dtype=torch.float8_e4m3fn)
    return *memory.permute(2, 0, 3, 1, 4), torch.ones(12), torch.ones(12)


def launch_kv_append() -> None:
    from zeroshot_kernels.kv_append.kernel import kv_append

    _, key, value, *_ = qkv_and_caches(64, HALF)
    kv_append(key, value, ints(32), *fp8_caches(64))
    for dtype, head_dim in itertools.product((HALF, FULL), (64, 80)):
        _, key, value, *caches = qkv_and_caches(head_dim, dtype)
        kv_append(key, value, ints(32), *caches)


def launch_prefill_attention() -> None:
    from zeroshot_kernels.prefill_attention.kernel import prefill_attention

    for dtype, head_dim in [*itertools.product(DTYPES, (64,)), *itertools.product((HALF, FULL), (80,)), (HALF, 128)]:
        query, _, _, *caches = qkv_and_caches(head_dim, dtype)
        prefill_attention(query, *caches, ints(8, 16), ints(8), ints(8), 0.125)
    for dtype in (HALF, torch.float16):
        query, *_ = qkv_and_caches(64, dtype)
        key_cache, value_cache, *scales = fp8_caches(64)
        prefill_attention(query, key_cache, value_cache, ints(8, 16), ints(8), ints(8), 0.125, *scales)


def launch_layer_norm() -> None:
    from zeroshot_kernels.layer_norm.kernel import layer_norm

    for dtype, n_embd in itertools.product((HALF, FULL), (768, 1600)):
        weight = torch.zeros(n_embd, dtype=dtype)
        layer_norm(torch.zeros(2, n_embd, dtype=dtype), torch.zeros(2, n_embd), weight, weight, 1e-5)
    for dtype, n_embd in FUSED:
        weight, hidden = torch.zeros(n_embd, dtype=dtype), torch.zeros(1, n_embd, dtype=dtype)
        layer_norm(hidden, torch.zeros(1, n_embd), weight, weight, 1e-5, use_pdl=True)


def launch_bias_gelu() -> None:
    from zeroshot_kernels.bias_gelu.kernel import bias_gelu

    for dtype in DTYPES:
        bias_gelu(torch.zeros(2, 3072, dtype=dtype), torch.zeros(3072, dtype=dtype))


def launch_logprobs() -> None:
    from zeroshot_kernels.logprobs.kernel import logprobs

    for dtype in DTYPES:
        logprobs(torch.zeros(128, 768, dtype=dtype), torch.zeros(VOCAB_SIZE, 768, dtype=dtype), longs(128))


def launch_logit_adjustment() -> None:
    from zeroshot_kernels.logit_adjustment.kernel import logit_adjustment

    per_entry = (ints(64), ints(64), torch.zeros(64), torch.zeros(64, dtype=torch.bool), ints(64))
    logit_adjustment(torch.zeros(2, VOCAB_SIZE), *per_entry, *torch.zeros(3, 2))


def launch_advance() -> None:
    from zeroshot_kernels.advance.kernel import advance

    for rows, use_pdl in ((None, False), (longs(2), False), (None, True)):
        state = (*torch.zeros(4, 4, dtype=torch.int64), ints(4), ints(4, 1024), ints(4), longs(4))
        advance(longs(2), torch.zeros(2, dtype=torch.bool), rows, *state, use_pdl=use_pdl)


def launch_embedding() -> None:
    from zeroshot_kernels.embedding.kernel import embedding

    for dtype, d, num_rows, use_pdl in IN_SUCCESSION:
        tables = torch.zeros(8, d, dtype=dtype), torch.zeros(8, d, dtype=dtype)
        embedding(longs(num_rows), longs(num_rows), *tables, use_pdl=use_pdl)


def launch_sampling() -> None:
    from zeroshot_kernels.sampling.kernel import sampling

    ones = torch.ones(2)
    for logits in (torch.zeros(2, VOCAB_SIZE), torch.zeros(2, 50304)[:, :VOCAB_SIZE], torch.zeros(2, 211)):
        draws, filters = (longs(2), longs(2), longs(2)), (ints(2), ones, ones)
        sampling(logits, ones, *filters, *draws)
        sampling(logits, ones, *filters, *draws, must_be_finite=True, with_logprobs=False)
        sampling(logits, ones, None, None, None, *draws, must_be_finite=True, with_logprobs=False)


def launch_lm_head_sampling() -> None:
    from zeroshot_kernels.lm_head_sampling.kernel import lm_head_sampling

    for dtype, rows in [*itertools.product((HALF, FULL), (1, 16, 32, 64)), (torch.float16, 1)]:
        hidden, lm_head = torch.zeros(rows, 768, dtype=dtype), torch.zeros(VOCAB_SIZE, 768, dtype=dtype)
        arguments = (hidden, lm_head, torch.ones(rows), longs(rows), longs(rows), longs(rows))
        lm_head_sampling(*arguments, with_logprobs=False)
        if rows == 16:  # two seconds each: what no server launches is compiled for a few shapes
            lm_head_sampling(*arguments)
        elif rows == 1 and dtype == HALF:
            lm_head_sampling(*arguments, logits=torch.zeros(rows, VOCAB_SIZE))
    for dtype, n_embd, rows in [*((*case, 1) for case in FUSED), (HALF, 768, 2)]:
        hidden, lm_head = torch.zeros(rows, n_embd, dtype=dtype), torch.zeros(VOCAB_SIZE, n_embd, dtype=dtype)
        parameters = (torch.ones(rows), longs(rows), longs(rows), longs(rows))
        lm_head_sampling(hidden, lm_head, *parameters, with_logprobs=False, use_pdl=True)


FUSED = [(HALF, 768), (HALF, 1280), (HALF, 1600), (torch.float16, 768), (FULL, 768)]
"""dtype and n_embd: 124M's, 774M's and 1.5B's."""
IN_SUCCESSION = [(*case, 1, use_pdl) for case in FUSED for use_pdl in (False, True)] + [(HALF, 768, 2, True)]
"""With the number of rows: one has code of its own."""


def linear(n_out: int, n_in: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.zeros(n_out, n_in, dtype=dtype), torch.zeros(n_out, dtype=dtype)


def folded(n_out: int, n_in: int, dtype: torch.dtype) -> tuple[Tensor | float, ...]:
    """A LayerNorm and a linear layer, in the order in which ops take them."""
    return (torch.zeros(n_in, dtype=dtype), 1e-5, torch.zeros(n_out, n_in, dtype=dtype), *torch.zeros(2, n_out))


def launch_ln_qkv_append() -> None:
    from zeroshot_kernels.ln_qkv_append.kernel import ln_qkv_append

    for dtype, d, num_rows, use_pdl in IN_SUCCESSION:
        caches = torch.zeros(3, d // 64, 2, 64, 64, dtype=dtype).permute(2, 0, 3, 1, 4)
        rows = (torch.zeros(num_rows, d), *folded(3 * d, d, dtype), ints(num_rows))
        ln_qkv_append(*rows, *caches, use_pdl=use_pdl)
    rows = (torch.zeros(1, 768), *folded(3 * 768, 768, HALF), ints(1))
    ln_qkv_append(*rows, *fp8_caches(64), use_pdl=True)


def launch_split_attention() -> None:
    from zeroshot_kernels.split_attention.kernel import split_attention

    heads = [*itertools.product(DTYPES, (64,)), (HALF, 80)]
    for (dtype, head_dim), rows, use_pdl in itertools.product(heads, (1, 2), (False, True)):
        query, _, _, *caches = qkv_and_caches(head_dim, dtype)
        split_attention(query[:rows], *caches, ints(rows, 16), ints(rows), 0.125, use_pdl=use_pdl)
    query, *_ = qkv_and_caches(64, HALF)
    key_cache, value_cache, *scales = fp8_caches(64)
    split_attention(query[:1], key_cache, value_cache, ints(1, 16), ints(1), 0.125, *scales, use_pdl=True)


def launch_merge_projection() -> None:
    from zeroshot_kernels.merge_projection.kernel import merge_projection

    more = [(HALF, 768, 1, True, 20), (FULL, 768, 1, True, 20)]  # splits than are merged at once, as those of GPT-2 are
    for dtype, d, num_rows, use_pdl, splits in [*((*case, 8) for case in IN_SUCCESSION), *more]:
        partials = (torch.zeros(8, splits, d // 64, 64), *torch.zeros(2, 8, splits, d // 64))
        residual = torch.zeros(num_rows, d)
        merge_projection(*partials, ints(num_rows), *linear(d, d, dtype), residual, use_pdl=use_pdl)


def launch_ln_fc_gelu() -> None:
    from zeroshot_kernels.ln_fc_gelu.kernel import ln_fc_gelu

    for dtype, d, num_rows, use_pdl in IN_SUCCESSION:
        ln_fc_gelu(torch.zeros(num_rows, d), *folded(4 * d, d, dtype), use_pdl=use_pdl)


def launch_projection() -> None:
    from zeroshot_kernels.projection.kernel import projection

    for dtype, d, num_rows, use_pdl in IN_SUCCESSION:
        hidden = torch.zeros(num_rows, 4 * d, dtype=dtype)
        projection(hidden, *linear(d, 4 * d, dtype), torch.zeros(num_rows, d), use_pdl=use_pdl)


def main() -> None:
    triton.knobs.nvidia.dump_ptxas_log = True
    prefix = "launch_"
    for name, launch in [item for item in globals().items() if item[0].startswith(prefix)]:

        def report(result: dict[str, Any], op: str = name.removeprefix(prefix)) -> None:
            sys.stdout.write(json.dumps({"op": op} | result) + "\n")

        compile_instead_of_running(report)
        launch()


if __name__ == "__main__":
    main()
