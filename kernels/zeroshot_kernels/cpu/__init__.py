"""GPT-2 for CPUs, in C++: linear layers in float32, bfloat16, int8, LayerNorm, attention over a paged cache, sampling.

One token of one stream reads every weight once, so what counts is to read memory at its full speed and to do nothing
else: no call per operation, no page of 4 KB, no thread that waits for another. `library.py` loads the kernels, which
were built for such a processor (`prebuilt.py`) or are compiled here (`compiler.py`). `layers.py` calls them for all
layers at once; `linear.py`, `layer_norm.py`, `attention.py`, `draw.py` and `logprobs.py` call one each.
"""
