"""llama.cpp as a peer of `cpu.py`: the checkpoint as a GGUF file, and decoding of a batch through its C API.

Its own server adds HTTP to this; its library is the faster, and so the fairer, thing to compare with.
"""

import ctypes
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.cpu_tokens import GREEDY, Sampling
from zeroshot.model.config import GPT2Config

GGML_TYPES = {"F32": "LLAMA_FTYPE_ALL_F32", "BF16": "LLAMA_FTYPE_MOSTLY_BF16", "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0"}
_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
"""GPT-2's names in a checkpoint -> llama.cpp's, but for the layer's number."""


class LlamaCpp:
    """Tried with one thread and with all of them for each batch size, then measured with the faster."""

    def __init__(self, checkpoint: Path, kind: str, threads: int, sampling: Sampling = GREEDY) -> None:
        import llama_cpp

        self._api: Any = llama_cpp
        self._silence = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        path = str(gguf_file(checkpoint, kind)).encode()
        self._model = llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path.decode()}")
        self._sampling = sampling
        self._vocab_size = GPT2Config.from_folder(checkpoint).vocab_size
        self._threads = dict.fromkeys((1, threads))
        self._best: dict[tuple[int, int], int] = {}

    def seconds(self, prompts: list[list[int]], output_tokens: int) -> float:
        case = (len(prompts), output_tokens)
        if case not in self._best:
            times = {threads: self._run(threads, prompts, output_tokens)[0] for threads in self._threads}
            self._best[case] = min(times, key=times.__getitem__)
        return self._run(self._best[case], prompts, output_tokens)[0]

    def tokens(self, prompts: list[list[int]], output_tokens: int) -> list[list[int]]:
        return self._run(max(self._threads), prompts, output_tokens)[1]

    def _run(self, threads: int, prompts: list[list[int]], output_tokens: int) -> tuple[float, list[list[int]]]:
        """The context is made before the clock starts. prompts: all of one length."""
        context = self._context(threads, len(prompts), len(prompts[0]) + output_tokens)
        samplers = [] if self._sampling.is_greedy else [self._sampler(seed) for seed in range(len(prompts))]
        batch = self._api.llama_batch_init(sum(map(len, prompts)), 0, 1)
        try:
            start = time.perf_counter()
            newest = self._decode(context, samplers, batch, prompts, 0)
            outputs = [newest]
            for step in range(output_tokens - 1):
                newest = self._decode(context, samplers, batch, [[token] for token in newest], len(prompts[0]) + step)
                outputs.append(newest)
            return time.perf_counter() - start, [list(tokens) for tokens in zip(*outputs, strict=True)]
        finally:
            self._api.llama_batch_free(batch)
            for sampler in samplers:
                self._api.llama_sampler_free(sampler)
            self._api.llama_free(context)

    def _context(self, threads: int, num_prompts: int, num_tokens: int) -> Any:
        params = self._api.llama_context_default_params()
        params.n_ctx = num_prompts * (-(-num_tokens // 256) * 256)  # divided among the sequences in pieces of 256
        params.n_seq_max = num_prompts
        params.n_batch = params.n_ctx
        params.n_threads = params.n_threads_batch = threads
        context = self._api.llama_init_from_model(self._model, params)
        if not context:
            raise RuntimeError("llama.cpp could not make a context")
        return context

    def _sampler(self, seed: int) -> Any:
        """As its own server makes one: filters first, so that the rest is done on few tokens."""
        api, sampling = self._api, self._sampling
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_k(sampling.top_k))
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_p(sampling.top_p, 1))
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(sampling.temperature))
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(seed))
        return chain

    def _decode(
        self, context: Any, samplers: list[Any], batch: Any, new_tokens: list[list[int]], position: int
    ) -> list[int]:
        """new_tokens: of each sequence, from `position` on. Returns the next token of each: without samplers, the
        likeliest one, for which NumPy is faster than llama.cpp's own sampler."""
        row = 0
        last_rows = []
        for sequence, tokens in enumerate(new_tokens):
            for offset, token in enumerate(tokens):
                batch.token[row], batch.pos[row] = token, position + offset
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
                batch.logits[row] = offset == len(tokens) - 1
                row += 1
            last_rows.append(row - 1)
        batch.n_tokens = row
        if self._api.llama_decode(context, batch) != 0:
            raise RuntimeError("llama.cpp could not decode the batch")
        if samplers:
            sample = self._api.llama_sampler_sample
            return [sample(sampler, context, row) for sampler, row in zip(samplers, last_rows, strict=True)]
        rows = (self._api.llama_get_logits_ith(context, row) for row in last_rows)
        return [int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax()) for logits in rows]


def gguf_file(checkpoint: Path, kind: str) -> Path:
    """The checkpoint as a GGUF file of that kind, written beside it once; without a tokenizer, prompts are ids."""
    path = checkpoint / f"{kind}.gguf"
    if path.exists():
        return path
    if kind == "F32":
        with tempfile.TemporaryDirectory(dir=checkpoint) as folder:
            write_gguf(checkpoint, Path(folder) / path.name).rename(path)
        return path
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, GGML_TYPES[kind])
    source = str(gguf_file(checkpoint, "F32")).encode()
    if llama_cpp.llama_model_quantize(source, str(path).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp could not make {path}")
    return path


def write_gguf(checkpoint: Path, path: Path) -> Path:
    import gguf

    config = GPT2Config.from_folder(checkpoint)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("none")
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        if (renamed := gguf_name(name)) is not None:
            is_matrix_of_a_layer = tensor.ndim == 2 and renamed.startswith("blk.")
            writer.add_tensor(renamed, np.ascontiguousarray(tensor.T if is_matrix_of_a_layer else tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str | None:
    """transformer.h.3.attn.c_attn.weight -> blk.3.attn_qkv.weight; None: no weight (a mask, or the tied LM head)."""
    module, _, kind = name.removeprefix("transformer.").rpartition(".")
    if module.startswith("h."):
        _, layer, module = module.split(".", 2)
        return f"blk.{layer}.{_NAMES[module]}.{kind}" if module in _NAMES else None
    return f"{_NAMES[module]}.{kind}" if module in _NAMES else None
