"""curl: where requests go, and what a plain good answer looks like on the wire."""

import base64
import json
from decimal import Decimal

import numpy as np
import pytest

from compat_tests.curl import EMBEDDINGS, REQUEST_ID, Curl, assert_error
from compat_tests.texts import ALIASES, DIMENSIONS, MODEL, SAMPLES
from compat_tests.truth import Truth, assert_close


def test_curl_gets_floats_when_it_names_no_format(curl: Curl, truth: Truth) -> None:
    answer = curl.post({"model": MODEL, "input": SAMPLES["plain"]})
    body = answer.json()
    assert list(body) == ["object", "data", "model", "usage"]
    assert list(body["data"][0]) == ["object", "index", "embedding"]
    num_tokens = truth.num_tokens(SAMPLES["plain"])
    assert body["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    assert_close(body["data"][0]["embedding"], truth.vector(SAMPLES["plain"]))
    assert answer.headers["content-type"] == "application/json"
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])


def test_curl_floats_are_the_shortest_text_of_a_float32(curl: Curl) -> None:
    answer = curl.post({"model": MODEL, "input": list(SAMPLES.values())})
    rows = json.loads(answer.body, parse_float=str)["data"]
    written = [text for row in rows for text in row["embedding"]]
    assert len(written) == len(SAMPLES) * DIMENSIONS
    assert [text for text in written if Decimal(text) != Decimal(str(np.float32(text)))] == []


def test_curl_base64_is_little_endian_float32(curl: Curl) -> None:
    body = {"model": MODEL, "input": SAMPLES["plain"]}
    floats = curl.post({**body, "encoding_format": "float"}).json()["data"][0]["embedding"]
    text = curl.post({**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert base64.b64decode(text, validate=True) == np.asarray(floats, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    "content_type",
    [
        "Content-Type:",
        "Content-Type;",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: multipart/form-data",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: application/json; charset=nonsense",
        "Content-Type: nonsense",
        "Content-Type: application/msgpack",
    ],
)
def test_curl_may_send_any_content_type_or_none(curl: Curl, content_type: str) -> None:
    answer = curl.post({"model": MODEL, "input": "a"}, "--header", content_type, json_type=False)
    assert answer.status == 200, answer.body


def test_curl_may_send_its_body_in_chunks(curl: Curl) -> None:
    assert curl.post({"model": MODEL, "input": "a"}, "--header", "Transfer-Encoding: chunked").status == 200


@pytest.mark.parametrize("path", ["/v1/embeddings/", "/embeddings", "//embeddings", "/v1//embeddings", "/v1/v1/embeddings"])
def test_curl_is_not_redirected_whatever_was_joined_to_the_base_url(curl: Curl, truth: Truth, path: str) -> None:
    answer = curl.post({"model": MODEL, "input": "a"}, path=path)
    assert answer.status == 200, answer.body
    assert_close(answer.json()["data"][0]["embedding"], truth.vector("a"))


@pytest.mark.parametrize("path", ["/v1/models/", "/models", "//models", "/v1//models", "/v1/v1/models", "/openai/models"])
def test_curl_finds_the_models_in_the_same_way(curl: Curl, path: str) -> None:
    assert curl.get(path).json() == curl.get("/v1/models").json()


@pytest.mark.parametrize("path", ["/v1/foo", "/v1", "/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/embeddings/x"])
def test_curl_is_told_that_there_is_no_such_path(curl: Curl, path: str) -> None:
    assert_error(curl.post({"model": MODEL}, path=path), 404, "unknown_url", f"Invalid URL (POST {path})")


@pytest.mark.parametrize("path", ["/v1/%66oo/../../etc/passwd", "/v1/foo%00", "/v1/%ff", "/v1/" + "x" * 5000])
def test_curl_odd_paths_are_not_there_either(curl: Curl, path: str) -> None:
    assert_error(curl.post({"model": MODEL}, path=path), 404, "unknown_url", "Invalid URL (POST ")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", EMBEDDINGS, "POST"),
        ("PUT", EMBEDDINGS, "POST"),
        ("DELETE", EMBEDDINGS, "POST"),
        ("PATCH", EMBEDDINGS, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/all-MiniLM-L6-v2", "GET"),
    ],
)
def test_curl_is_told_which_methods_there_are(curl: Curl, method: str, path: str, allowed: str) -> None:
    answer = curl.get(path, "--request", method)
    assert_error(answer, 405, "method_not_allowed", f"Not allowed to {method} on {path}.")
    assert allowed in answer.headers["allow"].split(", ")
    assert method not in answer.headers["allow"].split(", ")


def test_curl_a_method_that_http_does_not_have_is_refused_like_anything_else(curl: Curl) -> None:
    """It never reaches the application; the headers of every response are still there."""
    answer = curl.get("/v1/models", "--request", "FOOBAR")
    assert_error(answer, answer.status, answer.json()["error"]["code"])
    assert answer.status in {400, 405, 501}


@pytest.mark.parametrize("name", [MODEL, *ALIASES])
def test_curl_finds_a_model_with_its_slash_in_either_form(curl: Curl, name: str) -> None:
    listed = {model["id"]: model for model in curl.get("/v1/models").json()["data"]}
    for written in [name, name.replace("/", "%2F"), name.replace("/", "%2f")]:
        answer = curl.get(f"/v1/models/{written}")
        assert (answer.status, answer.json()) == (200, listed[name])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_curl_is_told_which_model_is_not_there(curl: Curl, method: str) -> None:
    name = "gpt-4o"
    answer = curl.get(f"/v1/models/{name}") if method == "GET" else curl.post({"model": name, "input": "a"})
    words = "The model `gpt-4o` does not exist or you do not have access to it."
    assert_error(answer, 404, "model_not_found", words, param="model")


def test_curl_too_many_headers_are_refused(curl: Curl) -> None:
    headers = {**curl.authorization, **{f"x-filler-{number}": "x" * 1000 for number in range(40)}}
    assert_error(curl.get("/v1/models", headers=headers), 431, "headers_too_large", "too large")
