"""What is taken apart must be put together as people write it, and be taken apart again without loss."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.evaluation.datasets.corpus_text import detokenized
from zeroshot.evaluation.detokenize import Detokenizer

SAMPLES = {
    "He had a guest @-@ starring role on the series .": "He had a guest-starring role on the series.",
    "It sold 1 @,@ 234 @.@ 5 copies ( 40 % ) , they say": "It sold 1,234.5 copies (40%), they say",
    'landed a role as " Craig " in " Teddy \'s Story " ;': 'landed a role as "Craig" in "Teddy\'s Story";',
    "= = Plot summary = =": "== Plot summary ==",
    "no it was n't black monday": "no it wasn't black monday",
    "the company 's stock fell $ N a share": "the company's stock fell $N a share",
    "<unk> @-@ <unk> and <unk> 's <unk>": "<unk>-<unk> and <unk>'s <unk>",
    "I don 't know , said Mr. Smith .": "I don't know, said Mr. Smith.",
}


@pytest.mark.parametrize("line", SAMPLES)
def test_text_as_people_write_it(line):
    detokenizer = Detokenizer(line.split())
    assert detokenizer.detokenize(line) == SAMPLES[line]
    assert detokenizer.tokenize(SAMPLES[line]) == line
    assert detokenizer.num_kept == 0


def test_what_would_be_ambiguous_stays_apart():
    detokenizer = Detokenizer(["Jr.", "is", "short", ";", "so", "is", "Jr", "."])
    assert detokenizer.detokenize("so is Jr .") == "so is Jr ."
    assert detokenizer.detokenize("Jr. is short ;") == "Jr. is short;"
    assert detokenizer.num_kept == 1


_LINES = "the word 's n't 't ' \" ( ) [ ] , . : ; ! ? % $ # @-@ @,@ @.@ = -- - <unk> N 12 3 Mr. U.S. don"
ANYTHING = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=6)
TOKENS = st.one_of(st.sampled_from(_LINES.split()), ANYTHING)


@given(st.lists(st.lists(TOKENS, max_size=20), max_size=4))
def test_every_line_comes_back(lines):
    lines = [" ".join(line).split() for line in lines]
    detokenizer = Detokenizer(token for line in lines for token in line)
    for line in lines:
        assert detokenizer.tokenize(detokenizer.detokenize(" ".join(line))) == " ".join(line)


@pytest.mark.parametrize(
    ("name", "num_tokens"),
    [
        ("wikitext2_tok_test.txt.gz", 245_569),  # the counts of the literature, <eos> included
        ("ptb_mikolov_test.txt.gz", 82_430),
        ("wikitext2_raw_test.txt.gz", None),
        ("ptb_cased_test.txt.gz", None),
    ],
)
def test_whole_corpora_come_back(shared_file, name, num_tokens):
    corpus = gzip.decompress(shared_file(name).read_bytes()).decode()
    detokenizer = Detokenizer(corpus.split())
    for line in corpus.splitlines():
        assert detokenizer.tokenize(detokenizer.detokenize(line)) == " ".join(line.split())
    if num_tokens is not None:
        assert detokenized(corpus)[1] == num_tokens


def test_a_corpus_as_the_model_reads_it():
    text, num_tokens, num_kept = detokenized(" \n = A title = \n \n No , it was n't . <eos>\n")
    assert text == "\n= A title =\n\nNo, it wasn't.\n"
    assert num_tokens == 10 + 4  # words and line ends; <eos> is a line end, not a word
    assert num_kept == 0
