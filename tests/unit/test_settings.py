"""The page about settings names every setting, with the default it has."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from zeroshot.settings import EngineSettings, Settings, load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def test_the_page_names_every_setting_and_no_other() -> None:
    named = set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
    fields = Settings.model_fields.items()
    assert named == {field.validation_alias or f"ZEROSHOT_{name.upper()}" for name, field in fields}


def test_the_pages_defaults_are_the_settings() -> None:
    settings = Settings()
    for name, default in re.findall(r"^\| `ZEROSHOT_(\w+)` \| [^|]*\| `([^`]+)` \|", PAGE, re.MULTILINE):
        value = getattr(settings, name.lower())
        if isinstance(value, Path):
            assert value.name == default.rstrip("/")
        else:
            assert value == type(value)(default), name


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSHOT_MAX_NUM_SEQS", "7")
    assert Settings().max_num_seqs == 7
    monkeypatch.setenv("ZEROSHOT_MAX_NUM_SEQS", "many")
    with pytest.raises(ValidationError):
        Settings()


def test_the_endpoint_for_traces_can_be_given_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert load_settings(otlp_endpoint="http://collector:4318").otlp_endpoint == "http://collector:4318"


def test_a_step_has_room_for_every_sequence() -> None:
    with pytest.raises(ValidationError, match="max_num_batched_tokens"):
        EngineSettings(max_num_seqs=100, max_num_batched_tokens=50)
