"""Whole runs: over HTTP as in process, the same twice, refused when the options can't be right."""

import asyncio
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.report import Outcome
from zeroshot.evaluation.runner import Options, evaluate_in_process, evaluate_over_http


def silent(name, done, total):
    pass


@pytest.fixture(scope="module")
def url(run, tmp_path_factory):
    """A server with the same checkpoint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "server.log"
    command = [sys.executable, "-m", "zeroshot", "serve", "--model", str(run.model.folder), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--threads", "1"], stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_over_http_as_in_process(run, url):
    names = ["sst2", "winograd", "natural-questions", "wikitext2"]
    report = asyncio.run(evaluate_over_http(url, Options(run.data, names), silent))
    outcomes = {outcome.name: outcome for outcome in report.outcomes}
    assert (report.mode, report.model) == ("over HTTP", run.model.folder.name)
    assert values(outcomes["sst2"]) == values(run.outcome("sst2"))
    assert values(outcomes["natural-questions"]) == values(run.outcome("natural-questions"))
    assert outcomes["winograd"].status == "measured"
    assert "with a space" in outcomes["winograd"].rows[0].notes[0]
    assert outcomes["wikitext2"].status == "skipped"
    assert "in process" in outcomes["wikitext2"].reason


def values(outcome: Outcome) -> dict[str, float]:
    assert outcome.rows
    return {row.key: row.value for row in outcome.rows}


def test_a_sampled_run_is_the_same_twice(run):
    options = Options(run.data, ["lambada", "books", "sst2"], limit=4, seed=7)
    reports = [
        asyncio.run(evaluate_in_process(run.settings, run.model.folder, options, silent)).outcomes for _ in range(2)
    ]
    first, second = ([[outcome.name, values(outcome), outcome.files] for outcome in report] for report in reports)
    assert first == second
    assert {row.count for outcome in reports[0] for row in outcome.rows} == {4}


def test_nothing_starts_with_options_that_cannot_be_right(run, tmp_path):
    with pytest.raises(InvalidRequest, match="no evaluation"):
        asyncio.run(evaluate_in_process(run.settings, tmp_path / "no model", Options(tmp_path, ["x"]), silent))


def test_an_evaluation_that_fails_does_not_take_the_others_with_it(run, tmp_path):
    (tmp_path / "sst2_test.jsonl").write_text("not json\n")
    (tmp_path / "mctest_test.jsonl").write_text('{"story": "s", "questions": [{"choices": 3}]}\n')
    (tmp_path / "lambada_test.jsonl").write_bytes((run.data / "lambada_test.jsonl").read_bytes())
    options = Options(tmp_path, ["lambada", "mctest", "sst2"], limit=2)
    report = asyncio.run(evaluate_in_process(run.settings, run.model.folder, options, silent))
    outcomes = {outcome.name: outcome for outcome in report.outcomes}
    assert outcomes["lambada"].status == "measured"
    assert outcomes["sst2"].status == outcomes["mctest"].status == "failed"
    assert "sst2_test.jsonl:1" in outcomes["sst2"].reason
    assert "another form" in outcomes["mctest"].reason


def test_a_run_goes_on_when_the_engine_is_lost(run):
    """Once while tokens are scored, and once while a task's requests run."""
    killed = []

    def kill_once(name, done, total):
        if name not in killed and 0 < done < total - 3:
            killed.append(name)
            children = psutil.Process().children()
            next(child for child in children if "zeroshot.engine.process" in child.cmdline()).kill()

    report = asyncio.run(
        evaluate_in_process(run.settings, run.model.folder, Options(run.data, ["lambada", "sst2"]), kill_once)
    )
    assert killed == ["lambada", "sst2"]
    for outcome in report.outcomes:
        assert outcome.status == "measured" or outcome.name not in killed, outcome.reason
        assert values(outcome) == pytest.approx(values(run.outcome(outcome.name)), rel=1e-4)
