"""Options as they read in the pronoun's place."""

import json

import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.datasets.winograd import in_place, parse


@pytest.mark.parametrize(
    ("option", "starts", "reads"),
    [
        ("The trophy", False, "the trophy"),
        ("the trophy", True, "The trophy"),
        ("Tom", False, "Tom"),
        ("My uncle", False, "my uncle"),
        ("Thérèse", False, "Thérèse"),
        ("Anna", False, "Anna"),
    ],
)
def test_capitals_follow_the_place(option, starts, reads):
    assert in_place(option, starts=starts) == reads


def test_a_schema_in_parts():
    record = {
        "sentence": "The trophy fell because _ is heavy.",
        "option1": "The trophy",
        "option2": "the case",
        "answer": "2",
    }
    schema = parse(record)
    assert (schema.before, schema.after) == ("The trophy fell because", " is heavy.")
    assert schema.options == ("the trophy", "the case")
    assert schema.answer == 1
    assert parse(record | {"sentence": "It broke. _ fell."}).options == ("The trophy", "The case")
    assert parse(record | {"sentence": "Sam saved _."}).after == "."


@pytest.mark.parametrize("change", [{"sentence": "no blank"}, {"sentence": "_ and _"}, {"answer": "3"}])
def test_another_format_is_refused(change):
    record = {"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"}
    with pytest.raises(InvalidRequest, match="Winograd"):
        parse(record | change)


def test_the_real_schemas_can_be_read(shared_file):
    schemas = [parse(json.loads(line)) for line in shared_file("wsc273.jsonl").read_text().splitlines()]
    assert len(schemas) == 273
    assert all(schema.options[0] != schema.options[1] for schema in schemas)
