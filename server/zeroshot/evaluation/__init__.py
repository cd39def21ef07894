"""`zeroshot eval`: the zero-shot tables of the GPT-2 paper, measured from local files, paper and measured side by side.

protocol.py    what an evaluation declares and measures    runner.py    select, run, collect a report
corpora.py     files of the data folder                    report.py    the report, JSON out and in
backend.py     an engine in this process                   tables.py    the report as tables
remote.py      a running server                            chart.py     the report as a picture
perplexity.py  sliding windows over running text           output.py    all of them into a folder
detokenize.py  an invertible de-tokeniser                  metrics.py   exact match, accuracy; rouge.py: ROUGE
datasets/      one module a data set: its protocol, the paper's numbers, how it is measured

"Radford et al. 2019" is "Language Models are Unsupervised Multitask Learners", the GPT-2 paper.
"""
