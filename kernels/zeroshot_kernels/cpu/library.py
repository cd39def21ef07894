"""Loads the C++ kernels: those built ahead of time for such a processor, or else compiled for it here.

The library asks OpenMP how many threads PyTorch takes, but is not linked to it: it finds the one that PyTorch has
brought. Its own threads (`pool.cpp`) are as many.
"""

import ctypes
import functools

from zeroshot_kernels.cpu import prebuilt
from zeroshot_kernels.cpu.compiler import KernelsUnavailable, compiled_here

_FLOATS = _BYTES = _INTS = _STRUCTURES = ctypes.c_void_p
_SIZE, _FLAG = ctypes.c_int64, ctypes.c_int
_CACHES = (ctypes.c_void_p, ctypes.c_void_p, _FLAG)  # keys, values, whether they are in 16 bits
_SIGNATURES = {
    "zeroshot_float_linear": [*[_FLOATS] * 5, *[_SIZE] * 4, _FLAG],
    "zeroshot_bf16_linear": [*[_FLOATS] * 5, _BYTES, *[_SIZE] * 4, _FLAG],
    "zeroshot_int8_linear": [_FLOATS, _BYTES, _FLOATS, _INTS, *[_FLOATS] * 3, _BYTES, _FLOATS, *[_SIZE] * 4, _FLAG],
    "zeroshot_float_greedy": [_FLOATS, _FLOATS, _INTS, _BYTES, *[_SIZE] * 3],
    "zeroshot_bf16_greedy": [_FLOATS, _FLOATS, _BYTES, _INTS, _BYTES, *[_SIZE] * 3],
    "zeroshot_int8_greedy": [_FLOATS, _BYTES, _FLOATS, _INTS, _BYTES, _FLOATS, _INTS, _BYTES, *[_SIZE] * 3],
    "zeroshot_decode_attention": [_FLOATS, *_CACHES, _INTS, _INTS, _FLOATS, *[_SIZE] * 6, ctypes.c_float],
    "zeroshot_prefill_attention": [_FLOATS, *_CACHES, *[_INTS] * 3, _FLOATS, *[_SIZE] * 6, ctypes.c_float],
    "zeroshot_layer_norm": [*[_FLOATS] * 4, *[_SIZE] * 2, ctypes.c_float],
    "zeroshot_layers": [_STRUCTURES, _SIZE, _FLOATS, *[_STRUCTURES] * 3],
    "zeroshot_draw": [_FLOATS, _STRUCTURES, _FLOATS, _INTS, *[_FLOATS] * 3, *[_INTS] * 4, _BYTES, *[_SIZE] * 3],
    "zeroshot_logprobs": [_FLOATS, _INTS, _FLOATS, _INTS, *[_SIZE] * 4],
    "zeroshot_kv_append": [_FLOATS, _FLOATS, _INTS, *_CACHES, *[_SIZE] * 4],
}


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels. Raises KernelsUnavailable."""
    try:
        loaded = ctypes.CDLL(str(prebuilt.find() or compiled_here()))
    except OSError as error:
        raise KernelsUnavailable(f"the compiled kernels can't be loaded: {error}") from error
    for name, argument_types in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = argument_types, None
    return loaded
