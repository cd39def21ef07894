"""`/tokenize`, `/detokenize`, `/tokenizer_info` and `/score`."""

import math
from typing import Any

import pytest
import torch

TEXTS = ["Grüße aus 東京 👩‍👩‍👧", "  two  spaces\n\n", "The quick brown fox", "a<|endoftext|>b"]


def post(server: Any, path: str, **body: Any) -> dict[str, Any]:
    response = server.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("text", ["", *TEXTS])
def test_text_to_tokens_and_back(server: Any, text: str) -> None:
    answer = post(server, "/tokenize", prompt=text, add_special_tokens=False, return_token_strs=True)
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 1024
    assert post(server, "/detokenize", tokens=answer["tokens"]) == {"prompt": text}


def test_end_of_text_is_one_token(server: Any) -> None:
    info = server.http.get("/tokenizer_info").json()
    assert info["eos_token"] == info["bos_token"] == "<|endoftext|>"
    assert post(server, "/tokenize", prompt="<|endoftext|>")["tokens"] == [50256]


def test_texts_longer_than_the_context_are_tokenised(server: Any) -> None:
    assert post(server, "/tokenize", prompt="a word " * 50_000)["count"] > 50_000


def test_the_text_of_token_ids_is_no_longer_than_one_to_tokenise(server: Any) -> None:
    longest = post(server, "/tokenize", prompt="ÃÂ" * 32)["tokens"]
    assert len(longest) == 1, "128 bytes, the longest token"
    assert len(post(server, "/detokenize", tokens=longest * 2**13)["prompt"]) == 2**19
    refused = server.http.post("/detokenize", json={"tokens": longest * (2**13 + 1)})
    assert refused.status_code == 400
    assert refused.json()["error"]["field"] == "tokens"


def expected_logprobs(checkpoint: Any, token_ids: list[int]) -> torch.Tensor:
    """[len(token_ids) - 1, vocab_size]"""
    with torch.inference_mode():
        return checkpoint.model(torch.tensor([token_ids])).logits[0, :-1].log_softmax(-1)


@pytest.mark.parametrize("add_bos_token", [True, False])
def test_scores_are_hugging_faces(server: Any, gpt2_checkpoint: Any, add_bos_token: bool) -> None:
    answer = post(server, "/score", text=TEXTS, top_logprobs=3, add_bos_token=add_bos_token)
    assert len(answer["results"]) == len(TEXTS)
    for text, result in zip(TEXTS, answer["results"], strict=True):
        token_ids = post(server, "/tokenize", prompt=text)["tokens"]
        assert [token["token_id"] for token in result["tokens"]] == token_ids
        scored = result["tokens"] if add_bos_token else result["tokens"][1:]
        rows = expected_logprobs(gpt2_checkpoint, [50256, *token_ids] if add_bos_token else token_ids)
        for token, row in zip(scored, rows, strict=True):
            value = float(row[token["token_id"]])
            assert token["logprob"] == pytest.approx(value, abs=1e-4)
            assert token["rank"] == pytest.approx(int((row > value).sum()) + 1, abs=2)
            assert [top["token_id"] for top in token["top"]] == row.topk(3).indices.tolist()
        assert result["num_tokens"] == len(scored)
        assert result["logprob"] == pytest.approx(sum(token["logprob"] for token in scored))
        assert result["perplexity"] == pytest.approx(math.exp(-result["logprob"] / len(scored)))
        if not add_bos_token:
            first = result["tokens"][0]
            assert (first["logprob"], first["rank"], first["top"]) == (None, None, [])


def test_token_ids_and_text_score_the_same(server: Any) -> None:
    token_ids = post(server, "/tokenize", prompt=TEXTS[0])["tokens"]
    from_text = post(server, "/score", text=TEXTS[0])["results"]
    assert post(server, "/score", token_ids=token_ids)["results"] == from_text
    assert post(server, "/score", token_ids=[token_ids, [40]])["results"][0] == from_text[0]


def test_a_whole_context_is_scored(server: Any) -> None:
    result = post(server, "/score", token_ids=[11] * 1023)["results"][0]
    assert result["num_tokens"] == 1023
    assert post(server, "/score", token_ids=[11] * 1024, add_bos_token=False)["results"][0]["num_tokens"] == 1023
