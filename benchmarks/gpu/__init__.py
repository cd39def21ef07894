"""The CUDA path on this card: kernels, engine and server, each beside its roofline and its peers, in one run.

python -m benchmarks.gpu              # on a CUDA machine: under 8 minutes
python -m benchmarks.gpu --dry-run    # anywhere: every section's code at tiny sizes, kernels interpreted, no figures
"""
