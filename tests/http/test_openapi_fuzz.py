"""schemathesis over the whole OpenAPI page: each answer is one that the page documents, whatever was sent."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.server import Server, run_server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
"""Not `positive_data_acceptance`: a text may fit its schema and not the context, which JSON Schema can't say."""
END_OF_TEXT, WORD = 50256, 262


@pytest.fixture(scope="module")
def brief_server(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its texts end after about ten tokens, so that hundreds of requests don't cost hundreds of tokens each."""
    folder = tmp_path_factory.mktemp("brief")
    model = Path(shutil.copytree(gpt2_checkpoint.folder, folder / "model"))
    tensors = load_file(model / "model.safetensors")
    likely = tensors["transformer.wte.weight"][[END_OF_TEXT, WORD]]
    # The smallest bias of the last LayerNorm that adds 40 and 38 to these two tokens' logits.
    tensors["transformer.ln_f.bias"] = likely.T @ torch.linalg.solve(likely @ likely.T, torch.tensor([40.0, 38.0]))
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with run_server(model, folder) as running:
        yield running


def test_no_answer_contradicts_the_page(brief_server: Server, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{brief_server.url}/openapi.json",
        "--checks", ",".join(CHECKS),
        "--phases", "examples,fuzzing", "--max-examples", "8", "--seed", "1", "--generation-deterministic",
        "--no-shrink", "--continue-on-failure", "--request-timeout", "60",
        "--warnings", "off", "--no-color",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", result.stdout)
    assert tested, result.stdout[-2000:]
    assert len(set(tested.groups())) == 1, "an operation was left out"
    brief_server.wait_until_idle()
    assert brief_server.generate(prompt="after all that", max_tokens=3)["choices"]
    assert "Traceback" not in brief_server.log.read_text()
