"""Zeroshot: a GPT-2 inference server whose prompt templates are typed REST endpoints."""

__version__ = "0.1.0"
