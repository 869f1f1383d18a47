"""What an upstream that is unavailable, or refuses us, means for the start."""

import asyncio

import numpy as np
import pytest

from gateway.config import Config, LimitSettings, ModelRow, StoreSettings
from gateway.errors import InputTooLong, ModelLoading, OperatorError, RequestTooLong
from gateway.testing import upstream_server as standin
from gateway.testing.programs import free_port
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.upstream.conftest import built, embedded, inputs, over, started

pytestmark = pytest.mark.timeout(60)


async def until(is_true):
    async with asyncio.timeout(20):
        while not is_true():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("backend", ["openai", "ollama", "tei"])
async def test_an_upstream_that_is_unavailable_is_waited_for_and_says_so(backend):
    port = free_port()
    remote = built(backend, url=f"http://127.0.0.1:{port}")
    starting = asyncio.create_task(remote.start())
    await until(lambda: "cannot be reached" in remote.health().detail)
    assert (remote.health().state, starting.done()) == ("loading", False)
    async with Standin(getattr(standin, backend)).serving(port=port):
        await starting
        assert remote.health().state == "ready"
        vectors = await embedded(remote, "a")
        await remote.close()
    np.testing.assert_allclose(vectors.rows, standin.vectors(["a"]), atol=1e-6)


@pytest.mark.parametrize("backend", ["openai", "tei"])
async def test_of_several_addresses_one_that_answers_is_enough(backend):
    async with Standin(getattr(standin, backend)).serving() as server:
        for urls in ([server.url, f"http://127.0.0.1:{free_port()}"], [f"http://127.0.0.1:{free_port()}", server.url]):
            async with started(backend, server, urls=urls) as remote:
                assert remote.describe().max_tokens == (512 if backend == "tei" else 8192)
                for number in range(8):
                    await embedded(remote, f"text {number}")


@pytest.mark.parametrize("backend", ["openai", "tei"])
async def test_one_that_says_continue_and_then_nothing_is_told_to_be_silent(backend):
    silent = Said(raw=b"HTTP/1.1 100 Continue\r\n\r\n")
    async with Standin(lambda _: silent).serving() as server:
        remote = built(backend, url=server.url, connect_timeout_seconds=0.1, read_timeout_seconds=0.1)
        starting = asyncio.create_task(remote.start())
        await until(lambda: "did not answer in time" in remote.health().detail)
        server.answer = getattr(standin, backend)
        await starting
        assert remote.health().state == "ready"
        await remote.close()


async def test_one_that_is_still_loading_its_model_is_waited_for_too():
    answers = [Said(503), Said(502, b"<html>"), Said(429, headers={"retry-after": "9"}), Said(504)]
    async with over("openai", lambda request: answers.pop(0) if answers else standin.openai(request)) as (_, remote):
        assert remote.health().state == "ready"
    assert not answers


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(401), "refused our key"),
        (Said(403), "refused our key"),
        (Said(404), "nothing at this address"),
        (Said(308, headers={"location": "/"}), "redirect"),
        (Said(200, b"<html>"), "not what this protocol says"),
        (Said(400), "refused the request with the status 400"),
    ],
)
async def test_what_only_an_operator_can_mend_is_an_error_that_names_the_model(said, reason):
    async with Standin(lambda _: said).serving() as server:
        remote = built("openai", url=server.url)
        with pytest.raises(OperatorError, match=rf"models\[m\]: The upstream of the model `m` .*{reason}"):
            await remote.start()
        assert remote.health().state == "failed"
        await remote.close()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"key": {"env": "NOT_THERE_AT_ALL"}}, r"models\[m\]\.key: the environment variable NOT_THERE_AT_ALL"),
        ({"key": {"file": "/not/there"}}, r"models\[m\]\.key: the secret file /not/there cannot be read"),
        ({"key": {"env": "TWO_LINES"}}, r"models\[m\]\.key: what is there cannot be sent in a header"),
        ({"headers": {"X-Team": {"env": "TWO_LINES"}}}, r"models\[m\]\.X-Team: what is there cannot be sent"),
    ],
)
async def test_a_secret_that_cannot_be_had_is_named_and_not_told(settings, told, monkeypatch):
    monkeypatch.setenv("TWO_LINES", "one\ntwo")
    remote = built("openai", url="http://127.0.0.1:1", **settings)
    with pytest.raises(OperatorError, match=told) as refused:
        await remote.start()
    assert "two" not in str(refused.value)
    await remote.close()


async def test_closing_before_the_start_and_twice_does_nothing():
    remote = built("openai", url="http://127.0.0.1:1")
    await remote.close()
    await remote.close()
    assert remote.health().state == "failed"


async def test_nothing_is_embedded_before_it_has_started():
    remote = built("openai", url="http://127.0.0.1:1")
    with pytest.raises(ModelLoading):
        await remote.embed(await remote.prepare(inputs("a")))


async def test_the_limits_of_the_configuration_hold_by_estimate():
    limits = LimitSettings(max_input_tokens=50, max_request_tokens=100)
    async with over("openai", standin.openai, limits=limits) as (_, remote):
        with pytest.raises(InputTooLong, match=r"'input\[1\]': maximum input length is 50 tokens"):
            await remote.prepare(inputs("a", "a" * 400))
        with pytest.raises(RequestTooLong, match="max 100 tokens"):
            await remote.prepare(inputs(*["a" * 100] * 5))
        assert (await remote.prepare(inputs("a" * 100))).token_counts == [27]


async def test_many_texts_are_estimated_off_the_loop_alike():
    async with over("openai", standin.openai) as (_, remote):
        texts = ["a" * 4000] * 80
        assert (await remote.prepare(inputs(*texts))).token_counts == [1002] * 80


def gateway_of(*rows, tmp_path):
    from gateway.app import Gateway
    from gateway.config import AuthSettings, ServerSettings

    return Gateway(
        Config(
            server=ServerSettings(port=0),
            auth=AuthSettings(mode="none"),
            store=StoreSettings(data_dir=str(tmp_path)),
            models=rows,
        )
    )


async def test_an_upstream_that_is_unavailable_holds_up_no_other_model(tmp_path):
    async with Standin(standin.openai).serving() as server:
        away = ModelRow(name="away", backend="openai", settings={"url": f"http://127.0.0.1:{free_port()}"})
        here = ModelRow(name="here", backend="openai", settings={"url": server.url})
        gateway = gateway_of(away, here, tmp_path=tmp_path)
        await gateway.load()
        waiting, serving = gateway.catalog.models
        assert (waiting.state, waiting.category, serving.state) == ("failed", "upstream_unavailable", "ready")
        assert "cannot be reached" in waiting.embedder.health().detail
        assert gateway.catalog.ready
        await gateway.close()
