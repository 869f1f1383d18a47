"""A server from its first answer to its exit code. Each test has a gateway of its own."""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.curl import EMBEDDINGS, Curl, assert_error
from compat_tests.process import START_SECONDS, Gateway
from compat_tests.texts import MODEL, prose
from compat_tests.truth import Truth, assert_close
from compat_tests.waiting import until

OwnGateway = Callable[..., Gateway]
REQUEST = {"model": MODEL, "input": "a"}


def client_of(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=ENVIRONMENT_KEY)


def test_server_finishes_what_runs_when_it_is_told_to_stop(own_gateway: OwnGateway, truth: Truth) -> None:
    texts = [f"{number} {prose(60, number)}" for number in range(300)]  # no two alike, so that the work takes its time
    with running(own_gateway()) as gateway, client_of(gateway) as client, ThreadPoolExecutor(1) as thread:
        bulk = thread.submit(client.embeddings.with_raw_response.create, model=MODEL, input=texts)
        until(lambda: gateway.metric("gateway_queue_inputs") > 0, seconds=60, what="the bulk waits for its turn")
        gateway.terminate()
        raw = bulk.result(timeout=60)
        assert gateway.wait() == 0, gateway.log
    assert '"draining"' in gateway.log
    assert '"stopped"' in gateway.log
    assert gateway.log.index('"draining"') < gateway.log.index(raw.headers["x-request-id"])  # it was told while the bulk ran
    assert_close([row.embedding for row in raw.parse().data], truth.vectors(texts))


def test_server_says_that_its_model_is_loading(own_gateway: OwnGateway) -> None:
    gateway = own_gateway()
    curl = Curl(gateway.origin, ENVIRONMENT_KEY)
    gateway.start()
    until(lambda: gateway.status_of("/livez") == 200, seconds=START_SECONDS, what="the gateway's /livez")
    answer = curl.post(REQUEST)
    assert_error(answer, 503, "model_loading", "is still loading", error_type="server_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 59
    gateway.wait_until_ready()
    assert curl.post(REQUEST).status == 200
    gateway.stop()


@contextmanager
def a_slow_body(curl: Curl, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """curl, sending a request that takes it a quarter of an hour."""
    body = folder / "body"
    body.write_bytes(b" " * 1_000_000)
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", "60", "--limit-rate", "1000", "--data-binary", f"@{body}"]
    options = ["--header", f"Authorization: Bearer {curl.key}", "--header", "Expect:", "--write-out", "\n%{http_code}"]
    process = subprocess.Popen([*command, *options, f"{curl.origin}{EMBEDDINGS}"], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_server_that_is_full_says_so_and_lets_nobody_wait_for_a_slow_body(own_gateway: OwnGateway, tmp_path: Path) -> None:
    settings = {"GATEWAY__SERVER__MAX_CONCURRENT_REQUESTS": "1", "GATEWAY__SERVER__BODY_TIMEOUT_SECONDS": "5"}
    with running(own_gateway(**settings)) as gateway, client_of(gateway) as client:
        curl = Curl(gateway.origin, ENVIRONMENT_KEY)
        with a_slow_body(curl, tmp_path) as slow:
            until(lambda: gateway.metric("gateway_http_requests_in_flight") > 1, seconds=4, what="the slow request is there")
            answer = curl.post(REQUEST)
            assert_error(answer, 503, "server_overloaded", "The server is currently overloaded", error_type="server_error")
            assert 1 <= int(answer.headers["retry-after"]) <= 59
            with pytest.raises(openai.InternalServerError) as caught:
                client.with_options(max_retries=0).embeddings.create(model=MODEL, input="a")
            assert (caught.value.status_code, caught.value.code) == (503, "server_overloaded")
            assert slow.stdout is not None
            said, _, status = slow.stdout.read().rpartition(b"\n")
            assert status == b"408"
            assert b"request_timeout" in said
        assert client.embeddings.create(model=MODEL, input="a").data
        gateway.stop()
