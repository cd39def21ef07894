"""Seeing inside: metrics, logs and traces. What is counted and how it is written; the rooms above say when."""
