"""A gateway before a gateway: openai-python cannot tell them apart, and one behind that dies is told in the contract's words."""

import base64
import json
import os
import signal

import numpy as np
import pytest
from openai import APIStatusError, BadRequestError, OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.process import Gateway
from compat_tests.test_faults import OwnGateway
from compat_tests.texts import LONG, MODEL, SAMPLES
from compat_tests.waiting import until

NAME = "theirs"


def in_front_of(gateway: Gateway, make: OwnGateway) -> Gateway:
    row = {
        "name": NAME,
        "backend": "openai",
        "url": gateway.base_url,
        "model": MODEL,
        "key": {"env": "THEIR_KEY"},
        "extra_body": {"long_input": "chunk"},
        "breaker_seconds": 0.2,
    }
    return make(GATEWAY__MODELS=json.dumps([row]), THEIR_KEY=ENVIRONMENT_KEY)


def rows_of(client: OpenAI, model: str, texts: list[str] | list[list[int]], **options: int) -> tuple[list[bytes], int]:
    raw = client.embeddings.with_raw_response.create(model=model, input=texts, encoding_format="base64", **options)  # type: ignore[arg-type]
    body = json.loads(raw.text)
    return [base64.b64decode(item["embedding"]) for item in body["data"]], body["usage"]["prompt_tokens"]


def test_openai_has_the_same_vectors_and_usage_through_two_gateways(
    gateway: Gateway, client: OpenAI, own_gateway: OwnGateway
) -> None:
    with running(in_front_of(gateway, own_gateway)) as front, OpenAI(base_url=front.base_url, api_key=ENVIRONMENT_KEY) as through:
        texts = [*SAMPLES.values(), "one more"]  # no two alike: see gateway/upstream/estimate.py
        for options in ({}, {"dimensions": 100}):
            rows, num_tokens = rows_of(client, MODEL, texts, **options)
            through_rows, through_tokens = rows_of(through, NAME, texts, **options)
            ours, theirs = (np.stack([np.frombuffer(row, dtype="<f4") for row in each]) for each in (rows, through_rows))
            np.testing.assert_allclose(theirs, ours, atol=1e-6)  # of texts in other company, which differ in the last bit
            assert through_tokens == num_tokens
        alone, counted = rows_of(client, MODEL, ["a text alone"])
        assert rows_of(through, NAME, ["a text alone"]) == (alone, counted)
        assert rows_of(through, NAME, [[15339, 1917]]) == rows_of(client, MODEL, ["hello world"])
        front.stop()
    assert ENVIRONMENT_KEY not in front.log


def test_openai_is_told_what_the_gateway_behind_says_of_a_long_text(gateway: Gateway, own_gateway: OwnGateway) -> None:
    front = in_front_of(gateway, own_gateway)
    [row] = json.loads(front.environment["GATEWAY__MODELS"])
    front.environment["GATEWAY__MODELS"] = json.dumps([{**row, "extra_body": {"long_input": "error"}}])
    with running(front), OpenAI(base_url=front.base_url, api_key=ENVIRONMENT_KEY) as through:
        with pytest.raises(BadRequestError) as refused:
            through.embeddings.create(model=NAME, input=["short", LONG])
        assert refused.value.code == "context_length_exceeded"
        assert "Invalid 'input[1]': maximum input length is 256 tokens." in str(refused.value)


def test_openai_gets_503_while_the_gateway_behind_is_unavailable_and_vectors_once_it_is_back(own_gateway: OwnGateway) -> None:
    with running(own_gateway(GATEWAY__CACHE__MAX_BYTES="0")) as behind:
        front = in_front_of(behind, own_gateway)
        front.environment["GATEWAY__CACHE__MAX_BYTES"] = "0"
        with running(front), OpenAI(base_url=front.base_url, api_key=ENVIRONMENT_KEY, max_retries=0) as through:
            through.embeddings.create(model=NAME, input="a")
            os.kill(behind.process.pid, signal.SIGKILL)
            behind.process.wait()
            with pytest.raises(APIStatusError) as refused:
                through.embeddings.create(model=NAME, input="a")
            assert (refused.value.status_code, refused.value.code) == (503, "upstream_unavailable")
            assert refused.value.response.headers["retry-after"] == "1"
            assert front.status_of("/livez") == front.status_of("/readyz") == 200
            behind.start()
            behind.wait_until_ready()
            until(lambda: is_served(through), seconds=30, what="the way through")


def is_served(client: OpenAI) -> bool:
    try:
        client.embeddings.create(model=NAME, input="a")
    except APIStatusError:
        return False
    return True
