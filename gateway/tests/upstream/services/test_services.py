"""Each row of docs/upstreams.md, as it stands on the page, against a stand-in of the service that it is for."""

import math
import re
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from gateway.config import load
from gateway.errors import InputTooLong, OperatorError, UpstreamUnavailable
from gateway.testing.upstream_server import Said, Standin, words
from gateway.tests.upstream.conftest import built, embedded, value_of
from gateway.tests.upstream.services.hosted import HOSTED, JINA, MISTRAL, NVIDIA, VOYAGE
from gateway.tests.upstream.services.local import INFINITY, LM_STUDIO, LOCAL, NO_MODEL_LOADED, VLLM, newer
from gateway.tests.upstream.services.standin import PATHS, READ_WORDS, answering, tokens_of, vectors

PAGE = (Path(__file__).parents[4] / "docs" / "upstreams.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Services\n")[1]
ROWS = dict(re.findall(r"^### (.+?)\n.*?^```toml\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL))
SERVICES = {service.name: service for service in (*HOSTED, *LOCAL)}
KEY = "a-key-of-a-service"
LONG = " ".join(["river stone paper"] * (READ_WORDS // 2))
SHORT_OF_LONG = " ".join(["river stone paper"] * (READ_WORDS // 4))


@pytest.fixture(params=SERVICES.values(), ids=SERVICES)
def service(request):
    return request.param


def row_of(service, tmp_path, origin):
    """The row of the page, read as the gateway reads its file: only where its address leads is another."""
    path = tmp_path / "gateway.toml"
    path.write_text(ROWS[service.name].replace(service.address, origin + urlsplit(service.address).path), encoding="utf-8")
    [row] = load(path, environ={}).models
    return row


@asynccontextmanager
async def over_row(service, tmp_path, monkeypatch, *, key=KEY, without=(), answer=None, **more):
    """Yields the stand-in and a model of it that was started by its row, whose key is `key`. `answer` is another stand-in's."""
    monkeypatch.setenv("A_KEY", KEY)
    async with Standin(answer or answering(service, None if service.wrong_key is None else KEY)).serving() as server:
        row = row_of(service, tmp_path, server.url)
        settings = {name: value for name, value in row.settings.items() if name not in without} | more
        if service.wrong_key is not None:
            named = settings.setdefault("key", {"env": "A_KEY"})
            monkeypatch.setenv(named["env"], key)
        remote = built(row.backend, name=row.name, retry=False, **settings)
        try:
            await remote.start()
            server.requests.clear()
            yield server, remote
        finally:
            await remote.close()


def right(found, texts):
    np.testing.assert_allclose(found.rows, vectors(texts), atol=1e-5)


def batch(count):
    return [f"text number {index}" for index in range(count)]


def test_the_page_has_a_row_and_a_line_of_the_table_for_each_of_the_fifteen():
    lines = re.findall(r"^\| \[(.+?)\]\(#.+?\) \|.*\| (.+) \|$", SECTION, flags=re.MULTILINE)
    assert [name for name, _ in lines] == list(ROWS) == list(SERVICES)
    assert len(SERVICES) == 15
    for name, source in lines:
        assert "https://" in source or "recorded" in source, name


async def test_its_row_serves(service, tmp_path, monkeypatch):
    assert f'url = "{service.address}"' in ROWS[service.name]
    texts = ["one small text", "another", "ein dritter, größerer"]
    async with over_row(service, tmp_path, monkeypatch) as (server, remote):
        found = await embedded(remote, *texts)
        [request] = server.requests
        right(found, texts)
        assert remote.health().learned == {}
        row = row_of(service, tmp_path, server.url)
        told = row.settings.get("max_tokens", READ_WORDS if service.protocol == "tei" else 8192)
        assert remote.description.max_tokens == told
    assert urlsplit(request.path).path == urlsplit(service.address).path + PATHS[service.protocol]
    if service.wrong_key is not None:
        assert KEY in request.headers[service.key_header]


async def test_its_usage_is_what_it_counts_where_that_can_be_tokens(service, tmp_path, monkeypatch):
    texts = ["a small text of several words, as they come", "another"]
    async with over_row(service, tmp_path, monkeypatch) as (_, remote):
        counted = sum((await embedded(remote, *texts)).token_counts)
        is_estimated = bool(value_of(remote, "gateway_estimated_tokens_total", model=remote.name))
    tells_none = service.name in {"Gemini", "LM Studio", "infinity"}
    assert is_estimated == tells_none
    assert (counted == words(texts)) == (not tells_none)


async def test_a_batch_above_its_limit_is_split_and_nothing_is_refused(service, tmp_path, monkeypatch):
    most = row_of(service, tmp_path, "http://127.0.0.1").settings.get("max_inputs") or service.max_inputs or 500
    texts = batch(most + 1)
    async with over_row(service, tmp_path, monkeypatch) as (server, remote):
        found = await embedded(remote, *texts)
        right(found, texts)
        assert remote.health().learned == {}
        sent = [len(request.body.get("inputs") or request.body["input"]) for request in server.requests]
    is_limited = service.max_inputs is not None or service is NVIDIA
    assert sorted(sent) == ([1, most] if is_limited else [most + 1])


@pytest.mark.parametrize("service", [each for each in SERVICES.values() if each.max_inputs], ids=lambda each: each.name)
async def test_a_row_without_its_limit_learns_it(service, tmp_path, monkeypatch):
    texts = batch(service.max_inputs * 2)
    async with over_row(service, tmp_path, monkeypatch, without={"max_inputs"}) as (server, remote):
        right(await embedded(remote, *texts), texts)
        if service.max_inputs < 1000 and service.protocol == "openai":
            assert remote.health().learned == {"max_inputs": service.max_inputs}
        server.requests.clear()
        right(await embedded(remote, *texts), texts)
        assert len(server.requests) <= math.ceil(len(texts) / service.max_inputs) + 1


@pytest.mark.parametrize("service", [MISTRAL, VOYAGE], ids=lambda each: each.name)
async def test_a_batch_of_more_tokens_than_it_takes_is_split(service, tmp_path, monkeypatch):
    texts = [f"{index} {SHORT_OF_LONG}" for index in range(service.max_request_tokens // tokens_of(SHORT_OF_LONG) + 2)]
    assert sum(map(tokens_of, texts)) > service.max_request_tokens
    async with over_row(service, tmp_path, monkeypatch) as (server, remote):
        right(await embedded(remote, *texts), texts)
        assert remote.health().learned == {}
        sent = [request.body["input"] for request in server.requests]
    assert len([each for each in sent if SHORT_OF_LONG in each[0]]) == 2  # beside the probes of so long a text


async def test_a_text_that_is_too_long_is_the_client_s_to_shorten(service, tmp_path, monkeypatch):
    async with over_row(service, tmp_path, monkeypatch) as (_, remote):
        with pytest.raises(InputTooLong, match=r"'input\[1\]': maximum input length is \d+ tokens"):
            await embedded(remote, "a short one", LONG, "another")
        with pytest.raises(InputTooLong):
            await embedded(remote, LONG)
        right(await embedded(remote, "a short one"), ["a short one"])
        assert remote.endpoints.endpoints[0].breaker.num_in_a_row == 0
        assert remote.health().learned == {}


@pytest.mark.parametrize("service", [each for each in SERVICES.values() if each.wrong_key], ids=lambda each: each.name)
async def test_a_wrong_key_is_told_to_the_operator(service, tmp_path, monkeypatch):
    with pytest.raises(OperatorError, match="refused our key") as refused:
        async with over_row(service, tmp_path, monkeypatch, key="another-key"):
            pass
    assert "another-key" not in str(refused.value)
    assert refused.value.category == "refused"


async def test_when_it_has_too_much_to_do_its_retry_after_is_obeyed(service, tmp_path, monkeypatch):
    async with over_row(service, tmp_path, monkeypatch) as (server, remote):
        for said, seconds in (
            (service.busy, service.busy_seconds),
            (Said(service.busy.status, service.busy.body, {"Retry-After": "7"}), 7),
        ):
            server.answer = lambda _, said=said: said
            server.requests.clear()
            with pytest.raises(UpstreamUnavailable) as refused:
                await embedded(remote, "a", "b")
            assert refused.value.retry_after_seconds == seconds
            assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("service", "name", "values"),
    [
        (VOYAGE, "input_type", ("query", "document", None)),
        (NVIDIA, "input_type", ("query", "passage", "passage")),
        (JINA, "task", ("retrieval.query", "retrieval.passage", None)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_a_purpose_is_said_in_its_own_words(service, name, values, tmp_path, monkeypatch):
    async with over_row(service, tmp_path, monkeypatch) as (server, remote):
        for input_type in ("query", "document", None):
            await embedded(remote, "a", input_type=input_type)
        assert tuple(request.body.get(name) for request in server.requests) == values


@pytest.mark.parametrize("service", [MISTRAL, VOYAGE, NVIDIA], ids=lambda each: each.name)
async def test_dimensions_that_a_service_does_not_know_are_told_at_the_start(service, tmp_path, monkeypatch):
    with pytest.raises(OperatorError, match=r"refused the request with the status 4\d\d"):
        async with over_row(service, tmp_path, monkeypatch, dimensions=8):
            pass


async def test_base64_is_used_where_it_is_given_and_asked_for_no_more_where_it_is_not(service, tmp_path, monkeypatch):
    async with over_row(service, tmp_path, monkeypatch) as (server, remote):
        await embedded(remote, "a")
        is_asked = server.requests[0].body.get("encoding_format") == "base64"
    assert is_asked == (service.protocol == "openai" and service.bytes_are == "given")


async def test_a_newer_vllm_says_the_same_in_another_shape(tmp_path, monkeypatch):
    async with over_row(VLLM, tmp_path, monkeypatch) as (server, remote):
        old = server.answer
        server.answer = lambda request: newer(said) if (said := old(request)).status == 400 else said
        with pytest.raises(InputTooLong, match=r"'input\[1\]': maximum input length is 512 tokens"):
            await embedded(remote, "a", LONG)


async def test_lm_studio_without_a_loaded_model_is_told_to_the_operator(tmp_path, monkeypatch):
    with pytest.raises(OperatorError, match="refused the request with the status 400"):
        async with over_row(LM_STUDIO, tmp_path, monkeypatch, answer=lambda _: NO_MODEL_LOADED):
            pass


async def test_what_is_cut_in_silence_may_be_asked_for_by_its_beginning(tmp_path, monkeypatch):
    async with over_row(INFINITY, tmp_path, monkeypatch) as (_, remote):
        found = await embedded(remote, LONG, long_input="end")
    np.testing.assert_allclose(found.rows, vectors([LONG], READ_WORDS), atol=1e-5)
