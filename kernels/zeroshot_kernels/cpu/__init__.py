"""What a CPU decodes with: linear layers in float32 and int8, and attention over the paged cache, in C++.

One token of one stream reads every weight once, so what counts is to read memory at its full speed and to do nothing
else: no call per operation, no page of 4 KB, no thread that waits for another. `library.py` compiles the sources for
the processor it finds itself on, where there is a compiler; `linear.py` and `attention.py` call them with tensors.
"""
