"""lm-eval's `local-completions`, unmodified: its log-likelihoods are Hugging Face's on the same checkpoint.

It gets an environment of its own, made at the first run; LM_EVAL_PYTHON names the interpreter of another one.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.environment import client_environment
from zeroshot.text.tokenizer import Tokenizer

pytestmark = pytest.mark.timeout(1200)  # the first test may install lm-eval, and two of its dependencies from source
INSTALL_TIMEOUT_S = 600
MAX_LENGTH = 1024
END_OF_TEXT = 50256

TASKS = {
    "local_mc": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: " "
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "local_gen": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 12, temperature: 0}
metric_list: [{metric: exact_match}]
""",
    "local_ppl": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
}
DOCUMENTS = [
    {"question": "The capital of France is", "choices": ["Paris", "London", "Rome"], "answer": 0},
    {"question": "Grüße aus 東京 👩‍👩‍👧:", "choices": ["日本", "Tōkyō", "é"], "answer": 1},
    {"question": "1 + 1 =", "choices": ["two", "2", "II"], "answer": 1},
]
TEXTS = [
    "It was a dark night, and nobody came.",
    "Grüße aus 東京 👩‍👩‍👧\n\nand a second line",
    "A long text goes over the edge of the context. " * 130,
]


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has lm-eval."""
    chosen = os.environ.get("LM_EVAL_PYTHON")
    return chosen or str(client_environment("lm-eval", "lm-eval[api]==0.4.13", timeout_s=INSTALL_TIMEOUT_S))


@pytest.fixture(scope="module")
def samples(
    python: str, server: Any, model_name: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval asked and what it was told, by task."""
    folder = tmp_path_factory.mktemp("lm_eval")
    write_tasks(folder)
    url = f"{server.url}/v1/completions"
    command = [python, "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", f"base_url={url},model={model_name},max_length={MAX_LENGTH},num_concurrent=2"]
    command += ["--tasks", ",".join(TASKS), "--include_path", str(folder), "--batch_size", "4"]
    command += ["--log_samples", "--output_path", str(folder / "results")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    result = subprocess.run(
        command, env=os.environ | offline, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    found = {}
    for task in TASKS:
        (path,) = (folder / "results").rglob(f"samples_{task}_*.jsonl")
        found[task] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return found


def write_tasks(folder: Path) -> None:
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)), encoding="utf-8")
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    for name, task in TASKS.items():
        data = folder / ("texts.jsonl" if name == "local_ppl" else "documents.jsonl")
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{source}{task}", encoding="utf-8")


@pytest.fixture(scope="module")
def encode(gpt2_checkpoint: Any) -> Callable[[str], list[int]]:
    return Tokenizer.from_folder(gpt2_checkpoint.folder).encode_with_special


@pytest.fixture(scope="module")
def loglikelihood(gpt2_checkpoint: Any) -> Callable[[list[int], list[int]], tuple[float, bool]]:
    """loglikelihood(context, continuation) -> its log-probability with Hugging Face, and whether it is greedy."""

    def compute(context: list[int], continuation: list[int]) -> tuple[float, bool]:
        with torch.inference_mode():
            logits = gpt2_checkpoint.model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1]
        targets = torch.tensor(continuation)
        chosen = logits.log_softmax(-1).gather(1, targets[:, None])
        return float(chosen.sum()), bool((logits.argmax(-1) == targets).all())

    return compute


def test_multiple_choice(samples: Any, encode: Any, loglikelihood: Any) -> None:
    assert len(samples["local_mc"]) == len(DOCUMENTS)
    for sample in samples["local_mc"]:
        document = sample["doc"]
        for choice, (response,) in zip(document["choices"], sample["resps"], strict=True):
            context = encode(document["question"])
            whole = encode(f"{document['question']} {choice}")
            expected, is_greedy = loglikelihood(context, whole[len(context) :])
            assert float(response[0]) == pytest.approx(expected, abs=1e-3)
            assert (str(response[1]) == "True") == is_greedy


def test_perplexity(samples: Any, encode: Any, loglikelihood: Any) -> None:
    assert len(samples["local_ppl"]) == len(TEXTS)
    for sample in samples["local_ppl"]:
        token_ids = encode(sample["doc"]["text"])
        size = MAX_LENGTH - 2  # lm-eval keeps one token for the context and one to generate
        expected = loglikelihood([END_OF_TEXT], token_ids[:size])[0]
        for start in range(size, len(token_ids), size):
            end = min(start + size, len(token_ids))
            expected += loglikelihood(token_ids[end - size - 1 : start], token_ids[start:end])[0]
        ((response,),) = sample["resps"]
        loglikelihood_found = response[0] if isinstance(response, list) else response
        assert float(loglikelihood_found) == pytest.approx(expected, rel=1e-6, abs=1e-3)  # a sum over 1,400 tokens


def test_generation(samples: Any, server: Any) -> None:
    assert len(samples["local_gen"]) == len(DOCUMENTS)
    for sample in samples["local_gen"]:
        body = {"prompt": sample["doc"]["question"], "max_tokens": 12, "temperature": 0, "stop": ["\n", "."]}
        assert sample["resps"][0][0] == server.generate(**body)["choices"][0]["text"]
