"""Nothing that a client sends may be read in the server's log, and nothing that it sends may move the server."""

import subprocess
from pathlib import Path

import pytest

from compat_tests.curl import Curl
from compat_tests.process import Gateway
from compat_tests.texts import MARKER, MODEL, SAMPLES
from compat_tests.truth import Truth, assert_close

SECRET = f"{MARKER}-in-the-log-test"
BODIES = {
    "text": {"model": MODEL, "input": SECRET},
    "wrong type": {"model": MODEL, "input": [SECRET, 5]},
    "unknown model": {"model": SECRET, "input": "a"},
    "user": {"model": MODEL, "input": "a", "user": SECRET},
    "unknown field": {"model": MODEL, "input": "a", SECRET: SECRET},
    "encoding_format": {"model": MODEL, "input": "a", "encoding_format": SECRET},
    "not JSON": f'{{"input": "{SECRET}'.encode(),
    "broken UTF-8": f'{{"input": "{SECRET}'.encode() + b'\xff"}',
    "deep": f'{{"{SECRET}": '.encode() + b"[" * 100_000,
    "too long": {"model": MODEL, "input": SECRET + "a " * 20_000},
    "too large": SECRET.encode() * 1_000_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_server_log_holds_nothing_of_a_body(curl: Curl, gateway: Gateway, body: object) -> None:
    answer = curl.post(body)
    assert answer.headers["x-request-id"] in gateway.log  # its line is there
    assert SECRET not in gateway.log


def test_server_log_holds_nothing_of_a_key_a_path_or_a_header(curl: Curl, gateway: Gateway) -> None:
    answers = [
        curl.get("/v1/models", headers={"Authorization": f"Bearer {SECRET}"}),
        curl.get("/v1/models", headers={"api-key": SECRET, "x-api-key": SECRET + "2"}),
        curl.get(f"/v1/{SECRET}?{SECRET}={SECRET}"),
        curl.get("/v1/models", "--request", "PROPFIND", headers={**curl.authorization, "User-Agent": SECRET}),
    ]
    assert [answer.status for answer in answers] == [401, 401, 404, 405]
    assert all(answer.headers["x-request-id"] in gateway.log for answer in answers)
    assert MARKER not in gateway.log.lower()


def test_server_answers_broken_http_without_harm(curl: Curl, gateway: Gateway, truth: Truth, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(f"{SECRET} / HTTP/9.9\r\n{SECRET}\r\n\r\n".encode())
    speaking: list[str | Path] = ["curl", "--silent", "--noproxy", "*", "--max-time", "10", "--upload-file", nonsense]
    subprocess.run([*speaking, f"telnet://127.0.0.1:{gateway.port}"], capture_output=True, timeout=30, check=False)
    assert_close(
        curl.post({"model": MODEL, "input": SAMPLES["plain"]}).json()["data"][0]["embedding"], truth.vector(SAMPLES["plain"])
    )
    assert SECRET not in gateway.log


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_server_is_unmoved_by_whatever_came_before(curl: Curl, truth: Truth, body: object) -> None:
    curl.post(body)
    answer = curl.post({"model": MODEL, "input": SAMPLES["plain"]})
    assert_close(answer.json()["data"][0]["embedding"], truth.vector(SAMPLES["plain"]))
