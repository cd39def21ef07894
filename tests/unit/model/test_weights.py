"""Checkpoints as they come: what is loaded, what is refused, and that the error names the culprit."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from zeroshot.errors import WeightsError
from zeroshot.model.config import GPT2Config
from zeroshot.model.weights import load_weights

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
UNTIED = {"tie_word_embeddings": False}


@pytest.fixture(scope="module")
def tied(checkpoint):
    return checkpoint(vocab_size=61, n_embd=12, n_positions=16)


@pytest.fixture(scope="module")
def untied(checkpoint):
    return checkpoint(vocab_size=61, n_embd=12, n_positions=16, **UNTIED)


@pytest.fixture
def folder(tied, tmp_path):
    """A copy of the tied checkpoint to break."""
    return shutil.copytree(tied.folder, tmp_path / "copy")


def load(folder, dtype=torch.float32):
    return load_weights(folder, GPT2Config.from_folder(folder), dtype=dtype, device=torch.device("cpu"))


def edit(folder, change):
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / FILE)


def assert_holds(weights, model, dtype=torch.float32):
    """Every tensor of ours is the one of Hugging Face's model."""
    theirs = {name.removeprefix("transformer."): value.to(dtype) for name, value in model.state_dict().items()}
    ours = {"wte.weight": weights.wte, "wpe.weight": weights.wpe, "lm_head.weight": weights.lm_head}
    ours |= {"ln_f.weight": weights.ln_f_weight, "ln_f.bias": weights.ln_f_bias}
    names = {"attn": "attn.c_attn", "attn_proj": "attn.c_proj", "fc": "mlp.c_fc", "fc_proj": "mlp.c_proj"}
    for i, layer in enumerate(weights.layers):
        for field in layer.__slots__:
            stem, _, kind = field.rpartition("_")
            ours[f"h.{i}.{names.get(stem, stem)}.{kind}"] = getattr(layer, field)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == dtype, name
        assert torch.equal(tensor, theirs[name]), name


def test_a_tied_checkpoint(tied):
    weights = load(tied.folder)
    assert_holds(weights, tied.model)
    assert weights.lm_head is weights.wte


def test_an_untied_checkpoint(untied):
    weights = load(untied.folder)
    assert_holds(weights, untied.model)
    assert not torch.equal(weights.lm_head, weights.wte)


def test_without_the_transformer_prefix(tied, folder):
    tensors = load_file(folder / FILE)
    assert any(name.startswith("transformer.") for name in tensors)
    save_file({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, folder / FILE)
    assert_holds(load(folder), tied.model)


def test_shards(tied, tmp_path):
    tied.model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_holds(load(tmp_path), tied.model)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_files(tied, folder, stored):
    edit(folder, lambda tensors: tensors.update({name: tensor.to(stored) for name, tensor in tensors.items()}))
    weights = load(folder)
    assert weights.wte.dtype == torch.float32
    torch.testing.assert_close(weights.wte, tied.model.transformer.wte.weight.data.to(stored).float())
    assert load(folder, torch.bfloat16).layers[1].fc_weight.dtype == torch.bfloat16


def test_stray_masks_are_ignored(tied, folder):
    def add_masks(tensors):
        for i in range(2):
            tensors[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16, dtype=torch.uint8)
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)

    edit(folder, add_masks)
    assert_holds(load(folder), tied.model)


def test_a_stored_copy_of_the_tied_head_is_accepted_and_a_different_one_is_not(tied, folder):
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].clone()}))
    assert_holds(load(folder), tied.model)
    edit(folder, lambda tensors: tensors["lm_head.weight"].add_(1))
    with pytest.raises(WeightsError, match=r"lm_head\.weight differs"):
        load(folder)


def test_an_untied_head_that_is_missing(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | UNTIED))
    with pytest.raises(WeightsError, match=r"lm_head\.weight is missing"):
        load(folder)


def _rename(tensors, old, new):
    tensors[new] = tensors.pop(old)


C_FC = "transformer.h.1.mlp.c_fc.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(C_FC), r"h\.1\.mlp\.c_fc\.weight is missing"),
        (lambda t: t.pop("transformer.wpe.weight"), r"wpe\.weight is missing"),
        (lambda t: t.update(score=torch.ones(2)), "unexpected tensor score"),
        (lambda t: _rename(t, C_FC, "transformer.h.2.mlp.c_fc.weight"), r"unexpected tensor h\.2\.mlp\.c_fc\.weight"),
        (lambda t: t.update({C_FC: t[C_FC].t()}), r"h\.1\.mlp\.c_fc\.weight is \[48, 12\].*\[12, 48\]"),
        (lambda t: t.update({"transformer.ln_f.bias": torch.ones(13)}), r"ln_f\.bias is \[13\].*\[12\]"),
        (lambda t: t.update({C_FC: t[C_FC].to(torch.int8)}), r"h\.1\.mlp\.c_fc\.weight has dtype I8"),
        (lambda t: t.update({C_FC: t[C_FC].bool()}), r"h\.1\.mlp\.c_fc\.weight has dtype BOOL"),
        (lambda t: t.update({"wpe.weight": t["transformer.wpe.weight"]}), r"wpe\.weight is there twice"),
    ],
)
def test_a_wrong_tensor_is_named(folder, change, message):
    edit(folder, change)
    with pytest.raises(WeightsError, match=message):
        load(folder)


def test_a_pickle_is_refused_with_the_conversion(tied, folder):
    (folder / FILE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError, match="pickle") as refusal:
        load(folder)
    assert "save_pretrained" in str(refusal.value)
    assert str(folder) in str(refusal.value)


def test_no_weights_at_all(folder):
    (folder / FILE).unlink()
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        load(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a/b.safetensors"])
def test_an_index_must_stay_in_its_folder(folder, name):
    shutil.copyfile(folder / FILE, folder.parent / FILE)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    with pytest.raises(WeightsError, match=r"index\.json names a file outside its folder"):
        load(folder)


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_an_index_may_not_name_a_folder(folder, name):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    with pytest.raises(WeightsError):
        load(folder)


@pytest.mark.parametrize(
    "index",
    ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": 5, "b": "c"}}',
     '{"weight_map": {"a": null}}', '{"weight_map": {"a": []}}', '{"weight_map": {}}'],
)  # fmt: skip
def test_a_broken_index(folder, index):
    (folder / INDEX).write_text(index)
    with pytest.raises(WeightsError):
        load(folder)


def test_a_shard_that_is_missing_is_named(tied, tmp_path):
    tied.model.save_pretrained(tmp_path, max_shard_size="4KB")
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(WeightsError, match=victim.name):
        load(tmp_path)


# Corrupted files: WeightsError, never anything else.


@pytest.fixture(scope="module")
def breakable(tied, tmp_path_factory):
    """(folder, the bytes of its intact file); every example writes the file anew."""
    folder = shutil.copytree(tied.folder, tmp_path_factory.mktemp("breakable") / "copy")
    return folder, (folder / FILE).read_bytes()


@settings(max_examples=60)
@given(share=st.floats(0, 0.999))
def test_a_truncated_file(breakable, share):
    folder, intact = breakable
    (folder / FILE).write_bytes(intact[: int(len(intact) * share)])
    with pytest.raises(WeightsError):
        load(folder)


@settings(max_examples=60)
@given(content=st.binary(max_size=400))
def test_random_bytes(breakable, content):
    folder, _ = breakable
    (folder / FILE).write_bytes(content)
    with pytest.raises(WeightsError):
        load(folder)


@settings(max_examples=300)
@given(data=st.data())
def test_a_mutated_header(breakable, data):
    """A few bytes of the length or of the JSON changed: refused, or still a checkpoint of the right shapes."""
    folder, intact = breakable
    content = bytearray(intact)
    header_end = 8 + int.from_bytes(intact[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header_end - 1))] = data.draw(st.integers(0, 255))
    (folder / FILE).write_bytes(content)
    try:
        weights = load(folder)
    except WeightsError:
        return
    assert weights.wte.shape == (61, 12)
    assert len(weights.layers) == 2


@settings(max_examples=150)
@given(data=st.data())
def test_a_header_with_wrong_values(breakable, data):
    """Valid JSON with one entry's dtype, shape or offsets replaced."""
    folder, intact = breakable
    length = int.from_bytes(intact[:8], "little")
    header = json.loads(intact[8 : 8 + length])
    entry = header[data.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))]
    numbers = st.integers(-1, 2**64 - 1) | st.integers(0, 100)
    entry |= data.draw(
        st.fixed_dictionaries({"dtype": st.sampled_from(["F8_E4M3", "I64", "F4", "C64", "f32", "", "F64"])})
        | st.fixed_dictionaries({"shape": st.lists(numbers, max_size=3)})
        | st.fixed_dictionaries({"data_offsets": st.lists(numbers, max_size=3)})
    )
    raw = json.dumps(header).encode()
    (folder / FILE).write_bytes(len(raw).to_bytes(8, "little") + raw + intact[8 + length :])
    with pytest.raises(WeightsError):
        load(folder)
