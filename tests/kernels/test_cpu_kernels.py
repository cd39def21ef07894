"""The C++ kernels against float64 and exact integers; each row the same bits alone and among others."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.model.int8_linear import MAX_ACTIVATION, Int8Linear
from zeroshot.model.native_linear import FORMATS, NativeLinear, WeightFormat, native_linear_factory
from zeroshot.model.native_ops import why_unavailable
from zeroshot_kernels.cpu import attention, compiler
from zeroshot_kernels.cpu.huge_pages import HugePages
from zeroshot_kernels.cpu.layer_norm import layer_norm
from zeroshot_kernels.cpu.linear import MATRIX_ROWS, pack_int8

# Where there is a compiler the kernels must be there: a mistake in them is no reason to skip what would find it.
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")

RAGGED_LENS = [1, 15, 16, 17, 63, 100, 1023, 1024]
SHAPES = [(1, 64, 96), (2, 768, 2304), (7, 100, 33), (8, 768, 768), (65, 3072, 768), (3, 50, 50257), (17, 128, 70)]
SHAPES += [(12, 768, 2304), (17, 100, 70)]  # blocks of two tiles, also of int8 where there are matrix registers


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", [None, "gelu_new", "relu"])
def test_float_linear(shape, activation, relative_error):
    num_rows, width, num_outputs = shape
    hidden, weight, bias = randn(num_rows, width, seed=1), randn(width, num_outputs, seed=2), randn(num_outputs, seed=3)
    linear = native_linear_factory("fp32")(weight, bias)
    exact = hidden.double() @ weight.double() + bias.double()
    expected = {
        None: exact,
        "gelu_new": F.gelu(exact, approximate="tanh"),
        "relu": exact.relu(),
    }[activation]
    assert relative_error(linear(hidden, activation), expected) <= 1e-6
    residual = randn(num_rows, num_outputs, seed=4)
    assert relative_error(linear.add_to(residual, hidden), exact + residual) <= 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_rounds_weights_and_adds_up_in_fp32(shape, relative_error):
    """The input too, where matrix registers multiply it: here it has nothing to be rounded."""
    num_rows, width, num_outputs = shape
    hidden, bias = randn(num_rows, width, seed=1).bfloat16().float(), randn(num_outputs, seed=3)
    weight = randn(width, num_outputs, seed=2)
    rounded = weight.bfloat16().float()
    linear = native_linear_factory("bf16")(weight, bias)
    exact = hidden.double() @ rounded.double() + bias.double()
    assert relative_error(linear(hidden), exact) <= 3e-6
    assert relative_error(linear(hidden, "gelu_new"), F.gelu(exact, approximate="tanh")) <= 3e-6
    residual = randn(num_rows, num_outputs, seed=4)
    assert relative_error(linear.add_to(residual, hidden), exact + residual) <= 3e-6
    if width % 32:  # no registers' width: by vectors everywhere, as in fp32
        assert torch.equal(linear(hidden), native_linear_factory("fp32")(rounded, bias)(hidden))


def test_bf16_rounds_the_input_by_half_a_step_at_most():
    hidden, weight = randn(5, 768, seed=1), randn(768, 96, seed=2)
    rounded = weight.bfloat16().double()
    bound = 2**-8 * (hidden.double().abs() @ rounded.abs())
    assert ((native_linear_factory("bf16")(weight, None)(hidden) - hidden.double() @ rounded).abs() <= bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pairs", [(64, 64, 64, 64), (1, 127, 127, 1), (100, 28, 28, 100)], ids=str)
def test_int8_sums_are_those_of_64_bit_integers(shape, pairs):
    """With the largest activations, where partial sums in 16 bits come closest to saturating."""
    num_rows, width, num_outputs = shape
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor(pairs).repeat(-(-width // 4))[:width]
    weight = torch.randint(0, 2, (num_outputs, width), generator=generator) * 2 - 1
    weight[0], weight[1] = 1, -1
    weight = weight * sizes
    hidden = torch.randint(-MAX_ACTIVATION, MAX_ACTIVATION + 1, (num_rows, width), generator=generator)
    hidden[:, 0] = MAX_ACTIVATION  # so that the scale is 1
    hidden[0] = MAX_ACTIVATION
    linear = native_linear_factory("int8")(randn(width, num_outputs, seed=5), None)
    linear.packed = pack_int8(weight.to(torch.int8), torch.ones(num_outputs), HugePages())
    assert torch.equal(linear(hidden.float()).long(), hidden @ weight.t())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_int8_is_what_the_library_without_a_compiler_gives(shape, relative_error):
    """FBGEMM adds 128 before it rounds, in float32: where a value lies half-way, within 2^-17, it may round it up."""
    num_rows, width, num_outputs = shape
    hidden, weight, bias = randn(num_rows, width, seed=1), randn(width, num_outputs, seed=2), randn(num_outputs, seed=3)
    native, plain = native_linear_factory("int8")(weight, bias), Int8Linear(weight, bias)
    assert relative_error(native(hidden), plain(hidden)) <= 3e-4
    assert relative_error(native(hidden, "gelu_new"), plain(hidden, "gelu_new")) <= 3e-4
    residual = randn(num_rows, num_outputs, seed=4)
    assert relative_error(native.add_to(residual, hidden), plain.add_to(residual, hidden)) <= 3e-4


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 64, 1), (64, 768, 50257)], ids=str)
def test_greedy_is_the_largest_of_the_outputs(weight_format, shape):
    num_rows, width, num_outputs = shape
    hidden, linear = (
        randn(num_rows, width, seed=1),
        native_linear_factory(weight_format)(randn(width, num_outputs, seed=2), None),
    )
    hidden[-1] = 0  # all outputs are equal: the first of them
    tokens, are_finite = linear.greedy(hidden, num_outputs)
    assert torch.equal(tokens, linear(hidden).argmax(-1))
    assert are_finite.all()


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_greedy_says_which_rows_are_not_finite(weight_format, value):
    hidden, linear = randn(6, 64, seed=1), native_linear_factory(weight_format)(randn(64, 40, seed=2), None)
    expected, _ = linear.greedy(hidden, 40)
    hidden[1, 7] = value
    tokens, are_finite = linear.greedy(hidden, 40)
    assert are_finite.tolist() == [True, False, True, True, True, True]
    assert torch.equal(tokens[are_finite], expected[are_finite])


@pytest.mark.parametrize("weight_format", FORMATS)
@given(
    num_rows=st.integers(1, 70),
    width=st.integers(1, 80),
    unit=st.sampled_from([1, 64]),  # of the registers that multiply many rows
    num_outputs=st.integers(1, 70),
    seed=st.integers(0, 2**31),
)
def test_a_row_is_the_same_alone_and_among_others(
    weight_format: WeightFormat, num_rows: int, width: int, unit: int, num_outputs: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    width = -(-width // 16) * unit if unit > 1 else width
    shapes = ((width, num_outputs), (num_outputs,), (num_rows, width), (num_rows, num_outputs))
    weight, bias, hidden, residual = (torch.randn(shape, generator=generator) for shape in shapes)
    linear = native_linear_factory(weight_format)(weight, bias)
    together, added = linear(hidden, "gelu_new"), linear.add_to(residual, hidden)
    for row in range(num_rows):
        part = slice(row, row + 1)
        assert torch.equal(linear(hidden[part], "gelu_new")[0], together[row])
        assert torch.equal(linear.add_to(residual[part], hidden[part])[0], added[row])


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_not_hidden_and_stays_in_its_row(weight_format, value):
    hidden, linear = randn(3, 64, seed=1), native_linear_factory(weight_format)(randn(64, 40, seed=2), None)
    expected = linear(hidden)
    hidden[1, 7] = value
    for activation in (None, "gelu_new"):
        assert not linear(hidden, activation)[1].isfinite().all()
    assert torch.equal(linear(hidden)[[0, 2]], expected[[0, 2]])


def test_rows_of_zeros_stay_zeros():
    linear = native_linear_factory("int8")(randn(64, 40, seed=2), None)
    assert not linear(torch.zeros(2, 64)).any()


CACHE_DTYPES = [torch.float32, torch.float16]


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@pytest.mark.parametrize("head_dim", [20, 32, 64, 80])
def test_decode_attention(paged_cache, naive_attention, relative_error, head_dim, dtype):
    cache = paged_cache(RAGGED_LENS, 3, head_dim, dtype=dtype, seed=head_dim)
    qkv = randn(len(RAGGED_LENS), 3, 3, head_dim, seed=1)  # a query lies between keys and values
    query, scale = qkv[:, 0], head_dim**-0.5
    output = attention.decode_attention(query, cache.key, cache.value, cache.block_tables, RAGGED_LENS, scale)
    for i, context_len in enumerate(RAGGED_LENS):
        expected = naive_attention(query[i : i + 1], cache.keys[i], cache.values[i], scale)
        assert relative_error(output[i], expected[0]) <= 2e-6, context_len
        table = cache.block_tables[i : i + 1].contiguous()
        alone = attention.decode_attention(query[i : i + 1], cache.key, cache.value, table, [context_len], scale)
        assert torch.equal(alone[0], output[i])


def test_decode_attention_passes_nan_on(paged_cache):
    cache = paged_cache([20, 20], 2, 32, dtype=torch.float32, seed=1)
    query = randn(2, 2, 32, seed=2)
    query[0, 1, 3] = torch.nan
    output = attention.decode_attention(query, cache.key, cache.value, cache.block_tables, [20, 20], 0.2)
    assert output[0, 1].isnan().all()
    assert output[0, 0].isfinite().all()
    assert output[1].isfinite().all()


def attend_to_prompts(query, cache, query_lens, context_lens, scale):
    tables = cache.block_tables
    return attention.prefill_attention(query, cache.key, cache.value, tables, query_lens, context_lens, scale)


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@pytest.mark.parametrize("head_dim", [20, 32, 64, 80])
@pytest.mark.parametrize("query_lens", [RAGGED_LENS, [1, 2, 16, 9, 30, 7, 1000, 24]], ids=["prompts", "chunks"])
def test_prefill_attention(paged_cache, naive_attention, relative_error, head_dim, query_lens, dtype):
    cache = paged_cache(RAGGED_LENS, 3, head_dim, dtype=dtype, seed=head_dim)
    query_lens = [min(lens) for lens in zip(query_lens, RAGGED_LENS, strict=True)]
    query, scale = randn(sum(query_lens), 3, 3, head_dim, seed=1)[:, 0], head_dim**-0.5
    output = attend_to_prompts(query, cache, query_lens, RAGGED_LENS, scale)
    assert output.is_contiguous()
    for i, (part, found) in enumerate(zip(query.split(query_lens), output.split(query_lens), strict=True)):
        expected = naive_attention(part, cache.keys[i], cache.values[i], scale)
        # Matrix registers take the sum of two bfloat16 for a float, where the cache is in float16.
        assert relative_error(found, expected) <= (2e-6 if dtype == torch.float32 else 1e-5), query_lens[i]


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@given(data=st.data(), context_len=st.integers(1, 150), seed=st.integers(0, 2**31))
def test_a_prompt_gives_the_same_bits_whatever_its_chunks(paged_cache, dtype, data, context_len, seed):
    cache = paged_cache([context_len], 2, 32, dtype=dtype, seed=seed)
    query = randn(context_len, 2, 32, seed=seed)
    whole = attend_to_prompts(query, cache, [context_len], [context_len], 0.2)
    start = 0
    while start < context_len:
        end = data.draw(st.integers(start + 1, context_len))
        assert torch.equal(attend_to_prompts(query[start:end], cache, [end - start], [end], 0.2), whole[start:end])
        start = end


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_prefill_attention_keeps_nan_in_its_sequence(paged_cache, dtype, poison):
    cache = paged_cache([20, 30], 2, 32, dtype=dtype, seed=1)
    query = randn(50, 2, 32, seed=2)
    query[7, 1, 3] = poison
    output = attend_to_prompts(query, cache, [20, 30], [20, 30], 0.2)
    assert output[7, 1].isnan().all()
    assert output[20:].isfinite().all()


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@pytest.mark.parametrize("poisoned", ["keys", "values"])
def test_prefill_attention_passes_a_tokens_nan_on_to_later_ones(paged_cache, dtype, poisoned):
    cache = paged_cache([40], 2, 32, dtype=dtype, seed=1)
    content = cache.key if poisoned == "keys" else cache.value
    content[cache.block_tables[0, 0], 5] = torch.tensor(0x7FFF, dtype=torch.int16).view(torch.float16).to(dtype)
    output = attend_to_prompts(randn(40, 2, 32, seed=2), cache, [40], [40], 0.2)
    assert output[5:].isnan().any(-1).all()


@pytest.mark.parametrize(("num_rows", "width"), [(1, 1), (3, 20), (40, 768), (17, 1600)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_layer_norm(relative_error, num_rows, width, offset):
    x, weight, bias = randn(num_rows, width, seed=1) + offset, randn(width, seed=2), randn(width, seed=3)
    output = layer_norm(x, weight, bias, 1e-5)
    expected = F.layer_norm(x.double(), (width,), weight.double(), bias.double(), 1e-5)
    assert relative_error(output, expected) <= (1e-6 if offset == 0 else 1e-3)  # float32 of x - 1000 is that coarse
    for row in range(num_rows):
        assert torch.equal(layer_norm(x[row : row + 1], weight, bias, 1e-5)[0], output[row])


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@pytest.mark.parametrize("head_dim", [20, 32])
def test_kv_append(dtype, head_dim):
    qkv, slots = randn(3, 3, 2, head_dim, seed=1), torch.tensor([17, 0, 40])
    qkv[:, :, 0, :8] *= torch.tensor([0.0, 1e-8, -1e-5, 1e4, 65519.0, -65520.0, torch.inf, torch.nan])
    _, key, value = qkv.unbind(1)
    caches = [randn(3, 16, 2, head_dim, seed=seed).to(dtype) for seed in (2, 3)]
    expected = [cache.clone() for cache in caches]
    for cache, rows in zip(expected, (key, value), strict=True):
        cache.view(-1, 2, head_dim)[slots] = rows.to(dtype)
    attention.kv_append(key, value, slots, *caches)
    for cache, wanted in zip(caches, expected, strict=True):
        assert torch.equal(cache.isnan(), wanted.isnan())
        assert torch.equal(cache.nan_to_num(7), wanted.nan_to_num(7))


def test_another_cache_is_refused():
    key = randn(1, 2, 32, seed=1)
    caches = [torch.zeros(1, 16, 2, 32, dtype=torch.bfloat16)] * 2
    with pytest.raises(TypeError, match="bfloat16"):
        attention.kv_append(key, key, torch.tensor([0]), *caches)


def test_weights_lie_where_large_pages_are_allowed():
    tensor = HugePages().zeros(8, 2**20, dtype=torch.float32)
    address = tensor.data_ptr()
    maps = Path("/proc/self/smaps").read_text().split("VmFlags:")
    for before, flags in itertools.pairwise(maps):
        mappings = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) ", before, flags=re.MULTILINE)
        if mappings and int(mappings[-1][0], 16) <= address < int(mappings[-1][1], 16):
            assert "hg" in flags.split("\n")[0].split()  # advised
            assert "sh" not in flags.split("\n")[0].split()  # not shared: that would take another setting
            return
    pytest.fail("the tensor is in no mapping")


def run_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


THREADS = """
import ctypes, re, torch
from zeroshot.model.native_ops import why_unavailable
assert why_unavailable() is None
torch.set_num_threads(3)
runtimes = set(re.findall(r"/\\S*libgomp\\S*", open("/proc/self/maps").read()))
print(ctypes.CDLL(None).omp_get_max_threads(), len(runtimes))
"""


def test_the_threads_are_pytorchs():
    """A second OpenMP runtime would bring threads of its own that `torch.set_num_threads` does not reach."""
    assert run_python(THREADS) == "3 1"


WHY = "import torch; from zeroshot.model.native_ops import why_unavailable; print(why_unavailable())"


def test_it_is_compiled_once(tmp_path, quick_compiler):
    assert run_python(WHY, XDG_CACHE_HOME=str(tmp_path), CXX=quick_compiler) == "None"
    (compiled,) = (tmp_path / "zeroshot").iterdir()
    modified = compiled.stat().st_mtime_ns
    assert run_python(WHY, XDG_CACHE_HOME=str(tmp_path), CXX=quick_compiler) == "None"
    assert compiled.stat().st_mtime_ns == modified


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path, quick_compiler):
    (tmp_path / "zeroshot").mkdir()
    (tmp_path / "zeroshot").chmod(0o777)
    assert run_python(WHY, XDG_CACHE_HOME=str(tmp_path), CXX=quick_compiler) == "None"
    assert not list((tmp_path / "zeroshot").iterdir())


def test_without_a_home_they_are_kept_for_the_process(monkeypatch):
    """As of a container's user who is in no list of users."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert compiler._cache_folder() == Path(compiler._process_folder().name)


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("ccache g++", "there is no C++ compiler 'ccache g++'"), ("false", "the C++ compiler failed")],
)
def test_without_a_compiler_it_says_so(tmp_path, compiler, message):
    assert message in run_python(WHY, XDG_CACHE_HOME=str(tmp_path), CXX=compiler)


def test_a_wrong_kernel_is_found_out(monkeypatch):
    monkeypatch.setattr(attention, "decode_attention", lambda query, *_: torch.zeros_like(query))
    assert "decode_attention" in str(why_unavailable.__wrapped__())


def test_they_are_tried_with_one_row_and_with_more_than_a_matrix_register_holds(monkeypatch):
    tried = {name: set() for name in ("add_to", "greedy")}
    for name, rows in tried.items():
        original = getattr(NativeLinear, name)

        def record(linear, *inputs, original=original, rows=rows):
            rows.add((type(linear.packed).__name__, max(len(x) for x in inputs if isinstance(x, torch.Tensor))))
            return original(linear, *inputs)

        monkeypatch.setattr(NativeLinear, name, record)
    assert why_unavailable.__wrapped__() is None
    for rows in tried.values():
        assert {kind for kind, count in rows if count > MATRIX_ROWS} == {"Tensor", "Int8Weight"}
    assert ("Int8Weight", 1) in tried["add_to"]
