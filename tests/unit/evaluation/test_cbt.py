"""The format of the Children's Book Test."""

import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.datasets.cbt import parse

BLOCK = (
    "1 `` You are late , '' said the cat .\n"
    "2 The door -LRB- a green one -RRB- was n't open .\n"
    "21 So the XXXXX went home .\tcat\t\tcat|door|dog\n"
)


def test_questions_are_read_and_de_tokenised():
    first, second = parse(BLOCK + "\n" + BLOCK)
    assert first == second
    assert first.context == '"You are late," said the cat. The door (a green one) wasn\'t open.'
    assert (first.before, first.after) == ("So the", " went home.")
    assert (first.answer, first.choices) == ("cat", ("cat", "door", "dog"))


@pytest.mark.parametrize(
    "block", ["1 one line", BLOCK.replace("\t\t", "\t"), BLOCK.replace("XXXXX", "cat"), "1 a\n21 XXXXX XXXXX\ta\t\ta|b"]
)
def test_another_format_is_refused_with_its_place(block):
    with pytest.raises(InvalidRequest, match="block 2"):
        list(parse(BLOCK + "\n" + block))
