"""Perplexity of a corpus that comes as tokens with spaces between them, one sentence or paragraph a line."""

from zeroshot.evaluation.corpora import DataFile
from zeroshot.evaluation.detokenize import Detokenizer
from zeroshot.evaluation.perplexity import text_perplexity
from zeroshot.evaluation.protocol import Measurement, Run

_LINE_END = "<eos>"  # what some editions write at the end of each line


async def corpus_perplexity(run: Run, file: DataFile) -> list[Measurement]:
    """Per original token: the words of the file and its line ends, which the literature counts as <eos>."""
    _ = run.scorer  # before reading: without one there is nothing to do
    text, num_tokens, num_kept = detokenized(run.data.text(file))
    note = f"{num_tokens:,} original tokens, line ends included; {num_kept} chunks could not be de-tokenised"
    return await text_perplexity(run, [text], num_tokens, notes=(note,))


def detokenized(corpus: str) -> tuple[str, int, int]:
    """The corpus as the model reads it, the number of its tokens, and how many chunks could not be de-tokenised."""
    lines = [line.removesuffix(_LINE_END).rstrip() for line in map(str.rstrip, corpus.rstrip("\n").split("\n"))]
    words = [line.split() for line in lines]
    detokenizer = Detokenizer(word for line in words for word in line)
    text = "".join(f"{detokenizer.detokenize(line)}\n" for line in lines)
    return text, sum(map(len, words)) + len(lines), detokenizer.num_kept
