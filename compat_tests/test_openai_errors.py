"""openai-python: the exception class of every way a request can fail, and what it tells."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from compat_tests.process import Gateway, free_port
from compat_tests.texts import MARKER, MODEL, prose
from compat_tests.waiting import until

REVOKED_SECONDS = 2  # the contract's

TOO_LONG = "a " * 20_000
TOO_MANY = "context_length_exceeded"
BAD_REQUESTS = {
    "empty text": ({"input": ""}, "input", "invalid_value", "input cannot be an empty string"),
    "an empty text among others": ({"input": ["a", ""]}, "input", "invalid_value", "input cannot be an empty string"),
    "no inputs": ({"input": []}, "input", "invalid_value", ""),
    "no token ids": ({"input": [[]]}, "input", "invalid_value", ""),
    "mixed": ({"input": ["a", [1]]}, "input", "invalid_type", "input"),
    "an id that is no token": ({"input": [[1], [100256]]}, "input", "invalid_value", "input[1]"),
    "too long": ({"input": ["a", TOO_LONG]}, "input", TOO_MANY, "Invalid 'input[1]': maximum input length is 16384"),
    "too many ids": ({"input": [1] * 8193}, "input", TOO_MANY, "maximum input length is 8192 tokens."),
    "model is null": ({"model": None}, "model", "missing_required_parameter", "model"),
    "input is null": ({"input": None}, "input", "missing_required_parameter", "input"),
    "model is a number": ({"model": 5}, "model", "invalid_type", "a string"),
    "dimensions is a text": ({"dimensions": "128"}, "dimensions", "invalid_type", "an integer"),
    "user is a number": ({"user": 5}, "user", "invalid_type", "a string"),
}  # fmt: skip


def assert_told(error: openai.APIStatusError, *, status: int, code: str | None, param: str | None, error_type: str) -> None:
    assert (error.status_code, error.code, error.param, error.type) == (status, code, param, error_type)


@pytest.mark.parametrize(("body", "param", "code", "words"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_openai_raises_bad_request(client: OpenAI, body: dict[str, Any], param: str, code: str, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="a", extra_body=body)
    assert_told(caught.value, status=400, code=code, param=param, error_type="invalid_request_error")
    assert words in caught.value.message


def test_openai_raises_bad_request_for_too_many_tokens_together(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Requested 303104 tokens, max 300000 tokens per request") as caught:
        client.embeddings.create(model=MODEL, input=[[1] * 8192] * 37)
    error_type = code = "max_tokens_per_request"
    assert_told(caught.value, status=400, code=code, param=None, error_type=error_type)


def test_openai_raises_authentication_error_for_a_wrong_key(client: OpenAI) -> None:
    wrong = f"sk-gw-{MARKER}-wrong"
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided: ") as caught:
        client.with_options(api_key=wrong).embeddings.create(model=MODEL, input="a")
    assert_told(caught.value, status=401, code="invalid_api_key", param=None, error_type="invalid_request_error")
    assert wrong not in caught.value.message


def test_openai_raises_authentication_error_soon_after_a_key_is_revoked(client: OpenAI, gateway: Gateway) -> None:
    public_id, key = gateway.create_key("to be revoked")
    visitor = client.with_options(api_key=key)

    def is_welcome() -> bool:
        try:
            return bool(visitor.embeddings.create(model=MODEL, input="a").data)
        except openai.AuthenticationError as error:
            assert_told(error, status=401, code="invalid_api_key", param=None, error_type="invalid_request_error")
            return False

    until(is_welcome, seconds=REVOKED_SECONDS, what="a new key works")
    gateway.run("keys", "revoke", public_id)
    until(lambda: not is_welcome(), seconds=REVOKED_SECONDS, what="a revoked key stops working")
    assert not is_welcome()
    assert client.embeddings.create(model=MODEL, input="a").data  # the other keys go on


def test_openai_raises_not_found_for_an_unknown_model(client: OpenAI) -> None:
    message = r"The model `gpt-4o` does not exist or you do not have access to it\."
    with pytest.raises(openai.NotFoundError, match=message) as caught:
        client.embeddings.create(model="gpt-4o", input="a")
    assert_told(caught.value, status=404, code="model_not_found", param="model", error_type="invalid_request_error")


def test_openai_raises_not_found_for_another_endpoint(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/moderations\)") as caught:
        client.moderations.create(input="a")
    assert_told(caught.value, status=404, code="unknown_url", param=None, error_type="invalid_request_error")


def test_openai_raises_an_api_status_error_for_a_large_body(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="too large") as caught:
        client.with_options(max_retries=0).embeddings.create(model=MODEL, input="a" * 60_000_000)
    assert_told(caught.value, status=413, code="request_too_large", param=None, error_type="invalid_request_error")


def clients_gone(gateway: Gateway) -> float:
    return gateway.metric("gateway_requests_total", having='outcome="client_gone"')


def test_openai_raises_timeout_and_the_gateway_forgets_the_request(client: OpenAI, gateway: Gateway) -> None:
    gone_before = clients_gone(gateway)
    # Some seconds' work for a client that waits half a second. The numbers keep texts apart: repeated ones are embedded once.
    bulk = [f"{number} {prose(200, number)}" for number in range(1000)]
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5, max_retries=0).embeddings.create(model=MODEL, input=bulk)
    until(lambda: clients_gone(gateway) == gone_before + 1, seconds=30, what="the gateway sees that a client left")
    until(lambda: gateway.metric("gateway_queue_inputs") == 0, seconds=30, what="the queue forgets a client who left")
    assert client.embeddings.create(model=MODEL, input="a").data


def test_openai_raises_connection_error_where_nobody_listens(key: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    with OpenAI(base_url=nowhere, api_key=key, max_retries=0) as lost, pytest.raises(openai.APIConnectionError):
        lost.embeddings.create(model=MODEL, input="a")
