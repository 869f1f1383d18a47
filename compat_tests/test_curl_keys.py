"""curl: who is let in."""

import pytest

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.curl import EMBEDDINGS, Curl, assert_error
from compat_tests.texts import MODEL

REQUEST = {"model": MODEL, "input": "a"}
WRONG = "sk-gw-abcdefghij-klmnopqrstuvwxyz"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_curl_may_write_the_scheme_as_it_likes(curl: Curl, scheme: str) -> None:
    assert curl.post(REQUEST, headers={"Authorization": f"{scheme} {curl.key}"}).status == 200


@pytest.mark.parametrize("header", ["api-key", "x-api-key", "X-API-Key"])
def test_curl_may_send_the_key_in_another_header(curl: Curl, header: str) -> None:
    assert curl.post(REQUEST, headers={header: curl.key}).status == 200


def test_curl_may_send_a_key_of_the_environment(curl: Curl) -> None:
    assert curl.post(REQUEST, headers={"Authorization": f"Bearer {ENVIRONMENT_KEY}"}).status == 200


def test_curl_may_send_one_key_twice(curl: Curl) -> None:
    assert curl.post(REQUEST, headers={**curl.authorization, "api-key": curl.key, "x-api-key": curl.key}).status == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic dXNlcjpwYXNz"}, {"api-key;": ""}],
    ids=["nothing", "no key", "another scheme", "an empty header"],
)
@pytest.mark.parametrize("path", [EMBEDDINGS, "/v1/models", "/v1/models/all-MiniLM-L6-v2"])
def test_curl_without_a_key_is_told_to_send_one(curl: Curl, path: str, headers: dict[str, str]) -> None:
    answer = curl.post(REQUEST, headers=headers) if path == EMBEDDINGS else curl.get(path, headers=headers)
    assert_error(answer, 401, None, "You didn't provide an API key.")


def test_curl_is_shown_only_the_ends_of_a_wrong_key(curl: Curl) -> None:
    answer = curl.post(REQUEST, headers={"Authorization": f"Bearer {WRONG}"})
    assert_error(answer, 401, "invalid_api_key", "Incorrect API key provided: sk-gw-ab***yz.")
    assert b"cdefghij" not in answer.body


@pytest.mark.parametrize("wrong", ["x", "ключ", "k" * 10_000, "two words", "sk-gw-", "sk-gw--"], ids=ascii)
def test_curl_any_wrong_key_is_a_wrong_key(curl: Curl, wrong: str) -> None:
    answer = curl.get("/v1/models", headers={"Authorization": f"Bearer {wrong}"})
    assert_error(answer, 401, "invalid_api_key", "Incorrect API key provided: ")
    assert len(wrong) == 1 or wrong.encode() not in answer.body


def test_curl_the_key_of_another_secret_is_wrong(curl: Curl) -> None:
    swapped = curl.key[:-1] + ("a" if curl.key[-1] != "a" else "b")
    assert_error(curl.get("/v1/models", headers={"Authorization": f"Bearer {swapped}"}), 401, "invalid_api_key")


@pytest.mark.parametrize("other", [ENVIRONMENT_KEY, WRONG], ids=["both right", "one wrong"])
def test_curl_two_different_keys_are_refused(curl: Curl, other: str) -> None:
    answer = curl.post(REQUEST, headers={**curl.authorization, "api-key": other})
    assert_error(answer, 401, "invalid_api_key", "Incorrect API key provided")


def test_curl_without_a_key_does_not_learn_which_models_there_are(curl: Curl) -> None:
    answers = [curl.post({"model": model, "input": "a"}, headers={}) for model in [MODEL, "unknown"]]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics"])
def test_curl_needs_no_key_to_watch(curl: Curl, path: str) -> None:
    assert curl.get(path, headers={}).status == 200
