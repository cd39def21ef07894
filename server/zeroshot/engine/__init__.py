"""The engine: one process that owns the device, the weights and the KV cache.

`scheduler`, `block_manager` and `sequence` are plain Python; tensors begin in `batch`. The HTTP side reaches all of
this through `zeroshot.client` only.
"""
