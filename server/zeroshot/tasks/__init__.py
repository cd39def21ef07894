"""Prompt files -> typed tasks: load, check, render, fit the context, generate or score, reload. Serves nothing.

catalog.py       the folder, reloaded                  task.py       one request, start to end
checks.py        one file, read and checked            prompt.py     the context rule
prompt_file.py   what may stand in a file              template.py   `{field}` substitution
inputs.py        what a request may bring              decoding.py   settings in, text out
yaml_source.py   values and their lines                ranking.py    labels and options
schema.py        a task's request and response models  scoring.py    log-probabilities, calibration
results.py       what answers are made of              openapi.py    the tasks on the docs page
prewarm.py       prefixes into the cache               offline.py    without a server, for `zeroshot task`
"""
