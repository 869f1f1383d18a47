"""Scores: order, sigmoids, and their text."""

import json

import numpy as np
import pytest
from msgspec import Raw

from gateway.wire import tei_rerank
from gateway.wire.rerank import RerankRequest, decode
from gateway.wire.rerank_response import best_first, encode, num_bytes, scores_of


def logits(*numbers):
    return np.array(numbers, dtype=np.float32)


def written(numbers, **asked):
    texts = [f"text {index}" for index in range(len(numbers))]
    request = RerankRequest(model="m", query="q", texts=texts, **asked)
    return encode(logits(*numbers), request, request_id="req", version="1", num_tokens=7)


def test_saturated_scores_keep_the_order_of_their_logits():
    scores = scores_of(logits(30, 40, 50), raw_scores=False)
    assert scores.tolist() == [1.0, 1.0, 1.0]
    assert best_first(logits(30, 40, 50), None) == [2, 1, 0]


def test_scores_never_rise_down_the_list():
    numbers = np.random.default_rng(0).normal(scale=20, size=1000).astype(np.float32)
    scores = [each["relevance_score"] for each in json.loads(written(numbers))["results"]]
    assert scores == sorted(scores, reverse=True)


def test_ties_come_in_the_order_of_the_request():
    assert best_first(logits(0, 1, 0, 1, -0.0), 4) == [1, 3, 0, 2]


def test_sigmoids_are_exact_to_float32_far_from_zero():
    assert scores_of(logits(-80), raw_scores=False)[0] == np.float32(1.8048513878454153e-35)
    assert scores_of(logits(-1000, 1000), raw_scores=False).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("raw_scores", [True, False])
def test_an_infinite_logit_is_written_as_a_number(raw_scores):
    content = json.loads(written([np.inf, -np.inf], raw_scores=raw_scores))
    assert [each["index"] for each in content["results"]] == [0, 1]
    assert all(np.isfinite(each["relevance_score"]) for each in content["results"])


def test_a_score_is_the_shortest_text_that_gives_the_same_float32():
    assert b'"relevance_score":0.1}' in written([0.1], raw_scores=True)
    assert b'"score":-11.25}' in tei_rerank.encode(logits(-11.25), RerankRequest("m", "q", ["a"], raw_scores=True))


@pytest.mark.parametrize(("num_documents", "units"), [(1, 1), (100, 1), (101, 2)])
def test_a_search_unit_is_a_hundred_documents(num_documents, units):
    assert json.loads(written([0.0] * num_documents))["meta"]["billed_units"] == {"search_units": units}


def test_an_object_comes_back_byte_for_byte():
    objects = [Raw(b'{"text": "a", "n": 1e400}'), Raw(b'"b"')]
    request = RerankRequest("m", "q", ["a", "b"], documents=objects, return_documents=True)
    reply = encode(logits(1, 0), request, request_id="req", version="1", num_tokens=7)
    assert b'"document":{"text": "a", "n": 1e400}}' in reply
    assert b'"document":{"text":"b"}}' in reply


@pytest.mark.parametrize("more", [{}, {"top_k": 40}, {"return_documents": True}, {"return_documents": True, "truncation": True}])
def test_the_size_of_a_reply_is_about_known_before_it_is_written(more):
    documents = [{"text": "a", "page": "x" * 10_000}, {"text": "b"}] * 20
    asked = decode(json.dumps({"model": "m", "query": "q", "documents": documents, **more}).encode())
    size = len(encode(logits(*np.linspace(-1, 1, 40)), asked, request_id="req", version="1", num_tokens=7))
    assert 0.8 * size < num_bytes(asked) < 2 * size
