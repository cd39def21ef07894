"""The least time a step can take: the bytes it has to read, over the bandwidth that was measured in this run."""

from zeroshot.model.config import GPT2Config


def weight_bytes(config: GPT2Config, bytes_per_value: int) -> int:
    """Read once a step, whatever the batch: the layers and the LM head."""
    d, inner = config.n_embd, config.n_inner
    layer = 4 * d * d + 2 * d * inner + 9 * d + inner  # matrices; biases and LayerNorms
    return bytes_per_value * (config.n_layer * layer + 2 * d + config.vocab_size * d)


def fused_layer_bytes(config: GPT2Config, rows: int, context: int, bytes_per_value: int) -> dict[str, int]:
    """What each of the five kernels of a decode layer must read from memory: weights, and contexts once."""
    d, inner = config.n_embd, config.n_inner
    return {
        "ln_qkv_append": bytes_per_value * (3 * d * d + 5 * d),
        "split_attention": bytes_per_value * rows * 2 * d * context,
        "merge_projection": bytes_per_value * (d * d + d),
        "ln_fc_gelu": bytes_per_value * (d * inner + inner + 2 * d),
        "projection": bytes_per_value * (d * inner + d),
    }


def kv_bytes(config: GPT2Config, context: int, bytes_per_value: int) -> int:
    """Keys and values of one sequence."""
    return 2 * config.n_layer * config.n_embd * context * bytes_per_value


def decode_floor_s(
    config: GPT2Config, batch: int, context: int, bytes_per_value: int, bandwidth: float, *, kv_bytes_per_value: int
) -> float:
    kv = batch * kv_bytes(config, context, kv_bytes_per_value)
    return (weight_bytes(config, bytes_per_value) + kv) / bandwidth


def prefill_flop(config: GPT2Config, num_tokens: int) -> float:
    """Of one prompt: matrices, causal attention, the head on the last token."""
    d, inner = config.n_embd, config.n_inner
    matrices = 2 * num_tokens * config.n_layer * (4 * d * d + 2 * d * inner)
    attention = 2 * config.n_layer * d * num_tokens * num_tokens  # q @ k and weights @ v, half of each
    return float(matrices + attention + 2 * d * config.vocab_size)
