"""config.json: every option is honoured or refused by its name, and whatever is in the file, only WeightsError."""

import json

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.errors import WeightsError
from zeroshot.model.config import ACTIVATIONS, GPT2Config

# What a GPT-2 of transformers has in its config and what has no part in inference.
OURS_ONLY = {"other_eos_token_ids"}
SHARED = [name for name in GPT2Config.__dataclass_fields__ if name not in OURS_ONLY]
TRAINING_ONLY = {"resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "use_cache", "reorder_and_upcast_attn"}


def test_the_defaults_are_those_of_transformers():
    ours, theirs = GPT2Config.from_dict({}), transformers.GPT2Config()
    for name in SHARED:
        expected = 4 * theirs.n_embd if name == "n_inner" else getattr(theirs, name)
        assert getattr(ours, name) == expected, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 300),
        ("n_positions", 77),
        ("n_embd", 96),
        ("n_layer", 5),
        ("n_head", 4),
        ("n_inner", 123),
        ("activation_function", "relu"),
        ("layer_norm_epsilon", 1e-3),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("tie_word_embeddings", False),
        ("bos_token_id", 3),
        ("eos_token_id", 4),
    ],
)
def test_an_option_is_read(name, value):
    assert getattr(GPT2Config.from_dict({name: value}), name) == value


def test_what_transformers_saves_is_read_and_what_we_write_transformers_reads(tmp_path):
    theirs = transformers.GPT2Config(
        vocab_size=300, n_positions=64, n_embd=40, n_layer=3, n_head=5, n_inner=99, activation_function="silu",
        layer_norm_epsilon=1e-4, scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False, eos_token_id=7,
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    ours = GPT2Config.from_folder(tmp_path)
    for name in SHARED:
        assert getattr(ours, name) == getattr(theirs, name), name
    (tmp_path / "config.json").write_text(json.dumps(ours.to_dict()))
    again = transformers.GPT2Config.from_pretrained(tmp_path)
    for name in SHARED:
        assert getattr(again, name) == getattr(theirs, name), name


def test_n_inner_defaults_to_four_times_n_embd():
    assert GPT2Config.from_dict({"n_embd": 36, "n_inner": None}).n_inner == 144
    assert GPT2Config.from_dict({"n_embd": 36}).n_inner == 144


def test_attention_scale():
    plain = GPT2Config.from_dict({"n_embd": 64, "n_head": 4})
    assert plain.head_dim == 16
    assert [plain.attention_scale(layer) for layer in (0, 3)] == [0.25, 0.25]
    by_layer = GPT2Config.from_dict({"n_embd": 64, "n_head": 4, "scale_attn_by_inverse_layer_idx": True})
    assert [by_layer.attention_scale(layer) for layer in (0, 1, 3)] == [0.25, 0.125, 0.0625]
    unscaled = GPT2Config.from_dict({"n_embd": 64, "n_head": 4, "scale_attn_weights": False})
    assert unscaled.attention_scale(2) == 1.0


@pytest.mark.parametrize(
    ("listed", "first", "others"),
    [([5, 6, 5, 7, 6], 5, (6, 7)), ([5], 5, ()), (5, 5, ()), ([], 50256, ()), (None, 50256, ())],
)
def test_every_end_token_of_a_list_is_read(listed, first, others):
    config = GPT2Config.from_dict({"eos_token_id": listed})
    assert (config.eos_token_id, config.other_eos_token_ids) == (first, others)
    assert GPT2Config.from_dict(config.to_dict()) == config
    assert GPT2Config.from_dict({"bos_token_id": listed}).bos_token_id == first


def test_a_list_of_end_tokens_as_transformers_saves_it(tmp_path):
    transformers.GPT2Config(eos_token_id=[7, 8]).save_pretrained(tmp_path)
    ours = GPT2Config.from_folder(tmp_path)
    assert (ours.eos_token_id, ours.other_eos_token_ids) == (7, (8,))
    assert transformers.GPT2Config(**ours.to_dict()).eos_token_id == [7, 8]


@pytest.mark.parametrize(("ends", "others"), [(7, ()), (9, (8, 9)), ([7, 9, 8], (8, 9)), (None, (8,)), ([], (8,))])
def test_the_ends_of_generation_config_json_count_as_well(tmp_path, ends, others):
    listed = [7, 8] if others else 7
    transformers.GPT2Config(eos_token_id=listed).save_pretrained(tmp_path)
    transformers.GenerationConfig(eos_token_id=ends, do_sample=True, temperature=0.5).save_pretrained(tmp_path)
    ours = GPT2Config.from_folder(tmp_path)
    assert (ours.eos_token_id, ours.other_eos_token_ids) == (7, others)


def test_a_config_that_can_not_be_read_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json can't be read: Is a directory"):
        GPT2Config.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": "end"}', f'{{"eos_token_id": {list(range(17))}}}'])
def test_a_generation_config_json_that_makes_no_sense_is_refused_by_its_name(tmp_path, content):
    transformers.GPT2Config().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"generation_config\.json"):
        GPT2Config.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "llama"),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("pruned_heads", {"0": [1]}),
        ("activation_function", "gelu_10"),
        ("activation_function", None),
        ("activation_function", ["gelu"]),
        ("n_head", 7),
        ("n_layer", 0),
        ("n_embd", -4),
        ("n_positions", "1024"),
        ("vocab_size", 1.5),
        ("vocab_size", True),
        ("n_inner", "big"),
        ("layer_norm_epsilon", "tiny"),
        ("layer_norm_epsilon", None),
        ("layer_norm_epsilon", [1e-5]),
        ("layer_norm_epsilon", -1e-5),
        ("layer_norm_epsilon", float("nan")),
        ("scale_attn_weights", "false"),
        ("scale_attn_by_inverse_layer_idx", 1),
        ("tie_word_embeddings", "no"),
        ("eos_token_id", "end"),
        ("eos_token_id", {"id": 1}),
        ("eos_token_id", ["end"]),
        ("eos_token_id", [1, "end"]),
        ("eos_token_id", [1, [2]]),
        ("eos_token_id", list(range(17))),
        ("bos_token_id", "start"),
    ],
    ids=str,
)
def test_what_is_not_honoured_is_refused_by_name(name, value):
    with pytest.raises(WeightsError, match=name):
        GPT2Config.from_dict({name: value}, origin="here")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("hidden_size", "n_embd"),
        ("max_position_embeddings", "n_positions"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    ],
)
def test_an_alias_of_transformers_is_honoured(alias, name):
    """transformers reads `num_attention_heads` as `n_head`: to ignore it would serve other logits without a word."""
    assert getattr(GPT2Config.from_dict({alias: 24}), name) == 24
    assert getattr(transformers.GPT2Config(**{alias: 24}), name) == 24


@pytest.mark.parametrize("name", sorted(TRAINING_ONLY))
def test_options_of_training_are_ignored(name):
    assert GPT2Config.from_dict({name: 0.25}) == GPT2Config.from_dict({})


def test_every_activation_listed_exists_in_transformers():
    assert set(ACTIVATIONS) <= set(transformers.activations.ACT2FN)
    for name in ACTIVATIONS:
        assert GPT2Config.from_dict({"activation_function": name}).activation_function == name


def test_a_folder_without_config(tmp_path):
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        GPT2Config.from_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'"gpt2"', b"\xff\xfe", b'{"n_embd": }', b"null"])
def test_a_config_that_is_not_an_object(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        GPT2Config.from_folder(tmp_path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from([*GPT2Config.__dataclass_fields__, "model_type", "pruned_heads"]), JSON_VALUES, max_size=2
    )
)
def test_no_value_raises_anything_but_weights_error(raw):
    try:
        config = GPT2Config.from_dict(raw)
    except WeightsError:
        return
    assert config.head_dim * config.n_head == config.n_embd
    assert config.activation_function in ACTIVATIONS
    assert isinstance(config.eos_token_id, int)
