"""Our forward pass over a paged cache against Hugging Face's GPT2LMHeadModel: the same logits, however it is cut up."""

from dataclasses import dataclass

import pytest
import torch

from zeroshot.engine.loader import load_model
from zeroshot.model.gpt2 import AttentionMetadata, KVCache
from zeroshot.settings import EngineSettings

BLOCK_SIZE = 4
MAX_ABS_DIFF = 1e-4

SHAPES = {
    "one head": {"n_embd": 32, "n_head": 1},
    "many heads": {"n_embd": 64, "n_head": 8},
    "odd head_dim": {"n_embd": 60, "n_head": 4},
    "head_dim 1": {"n_embd": 8, "n_head": 8},
    "one layer": {"n_layer": 1},
    "three layers": {"n_layer": 3},
    "narrow mlp": {"n_inner": 20},
    "wide mlp": {"n_inner": 333},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "swish": {"activation_function": "swish"},
    "tanh": {"activation_function": "tanh"},
    "gelu": {"activation_function": "gelu"},
    "gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"},
    "scale by layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    "no scale": {"scale_attn_weights": False, "initializer_range": 0.15},
    "no scale, by layer": {
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "initializer_range": 0.15,
    },
    "upcast attention": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    "large epsilon": {"layer_norm_epsilon": 0.1},
    "untied head": {"tie_word_embeddings": False},
    "real vocabulary": {"vocab_size": 50257, "n_embd": 32, "n_head": 2},
}


@dataclass
class Sequence:
    """Tokens, their blocks, and how many have run."""

    token_ids: list[int]
    blocks: list[int]
    num_computed: int = 0


class Forward:
    """GPT2.forward with a block table of its own: blocks are handed out in random order, the rest is poison."""

    def __init__(self, folder):
        self.model = load_model(EngineSettings(model_folder=folder, device="cpu", dtype="fp32"))
        self.cache = KVCache.allocate(self.model.config, 64, BLOCK_SIZE, dtype=torch.float32)
        self.cache.key.fill_(1e30)
        self.cache.value.fill_(1e30)
        self.free = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()

    def add(self, token_ids):
        return Sequence(token_ids, [self.free.pop() for _ in range(-(-len(token_ids) // BLOCK_SIZE))])

    @torch.inference_mode()
    def step(self, *steps):
        """steps: (sequence, how many of its tokens to run), single tokens first. Gives the logits of each."""
        token_ids, positions, slots, lens, width = [], [], [], [], max(len(s.blocks) for s, _ in steps)
        for sequence, num_tokens in steps:
            span = range(sequence.num_computed, sequence.num_computed + num_tokens)
            token_ids += [sequence.token_ids[p] for p in span]
            positions += span
            slots += [sequence.blocks[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in span]
            sequence.num_computed += num_tokens
            lens.append(num_tokens)
        attention = AttentionMetadata(
            slot_mapping=torch.tensor(slots),
            block_tables=torch.tensor([s.blocks + [s.blocks[0]] * (width - len(s.blocks)) for s, _ in steps]),
            context_lens=[s.num_computed for s, _ in steps],
            query_lens=lens,
            num_decodes=sum(n == 1 for n in lens),
        )
        hidden = self.model.forward(torch.tensor(token_ids), torch.tensor(positions), self.cache, attention)
        return self.model.compute_logits(hidden).split(lens)


def assert_close(logits, expected):
    assert logits.dtype == torch.float32
    assert logits.shape == expected.shape
    assert float((logits - expected).abs().max()) <= MAX_ABS_DIFF


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES.keys())
def test_logits_are_hugging_faces(checkpoint, prompts_of, hugging_face_logits, options):
    folder, model = checkpoint(**options)
    (token_ids,) = prompts_of(1, [37])
    expected = hugging_face_logits(model, token_ids)
    assert expected.std() > 0.3, "too flat to tell right from wrong"
    forward = Forward(folder)

    (whole,) = forward.step((forward.add(token_ids), 37))
    assert_close(whole, expected)

    chunked = forward.add(token_ids)
    assert_close(torch.cat([forward.step((chunked, n))[0] for n in (5, 1, 2, 16, 13)]), expected)

    one_by_one = forward.add(token_ids)
    assert_close(torch.cat([forward.step((one_by_one, 1))[0] for _ in token_ids]), expected)


def test_a_mixed_batch(checkpoint, prompts_of, hugging_face_logits):
    """Decodes, a whole prompt and a chunk in one step, each over its own context."""
    folder, model = checkpoint(n_layer=3)
    prompts = prompts_of(2, [30, 9, 17, 22, 1])
    expected = [hugging_face_logits(model, prompt) for prompt in prompts]
    forward = Forward(folder)
    long, short, whole, chunk, single = (forward.add(prompt) for prompt in prompts)
    forward.step((long, 29), (short, 8), (chunk, 6))
    logits = forward.step((long, 1), (short, 1), (single, 1), (whole, 17), (chunk, 16))
    assert_close(logits[0], expected[0][29:])
    assert_close(logits[1], expected[1][8:])
    assert_close(logits[2], expected[4])
    assert_close(logits[3], expected[2])
    assert_close(logits[4], expected[3][6:])


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.05), ("fp16", 0.01)])
def test_half_precision_is_near(
    checkpoint, load_engine, prompts_of, hugging_face_logits, run, request_of, dtype, tolerance
):
    """Not exact, but the same model: the error is small beside the spread of the logits."""
    folder, model = checkpoint()
    (token_ids,) = prompts_of(3, [40])
    engine = load_engine(folder, dtype=dtype)
    result = run(engine, request_of("a", token_ids, max_tokens=1, prompt_logprobs=0))["a", 0]
    expected = hugging_face_logits(model, token_ids).log_softmax(-1)
    expected = torch.stack([expected[p, token_id] for p, token_id in enumerate(token_ids[1:])])
    found = torch.tensor([logprob.logprob for logprob in result.prompt_logprobs])
    assert found.shape == expected.shape
    assert float((found - expected).abs().mean() / expected.std()) < tolerance


def test_the_last_position_of_the_context(checkpoint, prompts_of, hugging_face_logits):
    folder, model = checkpoint(n_positions=256)
    (token_ids,) = prompts_of(4, [256])
    forward = Forward(folder)
    sequence = forward.add(token_ids)
    logits = torch.cat(
        [forward.step((sequence, 200))[0], forward.step((sequence, 55))[0], forward.step((sequence, 1))[0]]
    )
    assert_close(logits, hugging_face_logits(model, token_ids))
