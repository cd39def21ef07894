"""The data folder: packed or not, and messages that say which file is wanted."""

import gzip
import hashlib
import lzma

import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.corpora import DataFile, DataFolder, Skipped, sample

FILE = DataFile(("first.jsonl", "second.jsonl"), 'JSONL: {"text": ...}', "something to read")


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("first.jsonl", bytes),
        ("second.jsonl", bytes),
        ("first.jsonl.gz", gzip.compress),
        ("second.jsonl.xz", lzma.compress),
    ],
)
def test_files_are_found_by_name_and_unpacked(tmp_path, name, pack):
    content = '{"text": "a\u2028b"}\n\n{"text": "c", "more": 1}\n'.encode()
    (tmp_path / name).write_bytes(pack(content))
    data = DataFolder(tmp_path)
    assert data.records(FILE, "text") == [{"text": "a\u2028b"}, {"text": "c", "more": 1}]
    assert data.checksums == {name: hashlib.sha256(content).hexdigest()}


def test_a_missing_file_says_what_is_wanted(tmp_path):
    with pytest.raises(Skipped) as raised:
        DataFolder(tmp_path).text(FILE)
    for words in ("first.jsonl or second.jsonl", FILE.format, FILE.origin):
        assert words in raised.value.message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("first.jsonl", b'{"text": 1}\nnot json\n', "first.jsonl:2: no JSON object"),
        ("first.jsonl", b"3\n", "first.jsonl:1: no JSON object"),
        ("first.jsonl", b'{"text": 1}\n\n{"txt": 1}\n', "first.jsonl:3: no 'text'"),
        ("first.jsonl", b" \n", "is empty"),
        ("first.jsonl", b"\xff\xfe", "can't be read"),
        ("first.jsonl.gz", b"not packed", "can't be read"),
        ("first.jsonl.gz", gzip.compress(b'{"text": 1}', mtime=0)[:-9], "can't be read"),
    ],
)
def test_a_file_with_something_else_in_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest) as raised:
        DataFolder(tmp_path).records(FILE, "text")
    assert message in raised.value.message
    assert FILE.format in raised.value.message


def test_a_sample_is_drawn_by_the_seed_and_keeps_the_order():
    items = list(range(1000))
    drawn = sample(items, 20, seed=3)
    assert drawn == sorted(drawn) == sample(items, 20, seed=3)
    assert drawn != sample(items, 20, seed=4)
    assert max(drawn) > 500, "the beginning of a sorted file is no sample"
    assert sample(items, None, 0) == sample(items, 5000, 0) == items
