"""schemathesis over the whole OpenAPI page: each answer is one that the page documents, whatever was sent."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
"""Not `positive_data_acceptance`: a text may fit its schema and not the context, which JSON Schema can't say."""


def test_no_answer_contradicts_the_page(server: Any, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json",
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--generation-deterministic",
        "--no-shrink", "--continue-on-failure", "--request-timeout", "60",
        "--warnings", "off", "--no-color",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=290, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert re.search(r"[1-9]\d* generated", result.stdout), "nothing was tried"
    server.wait_until_idle()
    assert server.generate(prompt="after all that", max_tokens=3)["choices"]
    assert "Traceback" not in server.log.read_text()
