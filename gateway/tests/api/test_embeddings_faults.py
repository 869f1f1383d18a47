"""What breaks inside costs nobody more than it must: dying device threads, inputs without a vector, a queue that is full.

All of it over real sockets. Nothing hangs: every request ends with 200, with a 503 that says when to come back, or with the error
of its own input.
"""

import asyncio
import base64
from itertools import islice

import numpy as np
import pytest

from gateway.engine.device import MAX_RESTARTS
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import BOUND_SECONDS, assert_refused, got, posted, sent, until
from gateway.tests.api.faulty import HeldEncoder, assert_vectors, begun, embedded, gateway_of, is_at_rest, metric, num_queued

pytestmark = pytest.mark.usefixtures("quiet")

NUM_CONNECTIONS = 500
# A thread that dies by an exception is what some of these tests are about; Python reports it through threading.excepthook.
dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@dies
async def test_a_device_thread_that_dies_in_mid_batch_costs_that_batch_alone(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path)
    long = "7 " * 16
    with served(gateway) as address:
        with encoder.held():
            first = await begun(address, encoder, "1")
            in_its_batch, elsewhere = sent(address, ["2"], ["3", "kills"], ["4"]), sent(address, [long])
            await until(lambda: num_queued(gateway) == 5, address)
        assert_vectors(await first, ["1"])
        for task in in_its_batch:
            assert_refused(await task, code="model_unavailable")
        assert_vectors(await elsewhere[0], [long])
        assert_vectors(await posted(address, ["2", "3"]), ["2", "3"])
        assert metric(gateway, "gateway_device_restarts_total", model="m") == 1
        assert (await got(address, "/livez")).status == 200
        await until(lambda: is_at_rest(gateway), address)


@dies
async def test_a_device_that_dies_too_often_is_given_up_and_nobody_waits_for_it(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path)
    with served(gateway) as address:
        for _ in range(MAX_RESTARTS):
            assert_refused(await posted(address, ["kills"]), code="model_unavailable")
            assert (await got(address, "/livez")).status == 200
        with encoder.held():
            last = await begun(address, encoder, "kills")
            waiting = sent(address, ["1"], ["2 3"])
            await until(lambda: num_queued(gateway) == 2, address)
        for task in (last, *waiting):
            assert_refused(await task, code="model_unavailable")
        for path in ("/livez", "/readyz"):
            assert (await got(address, path)).status == 503
        assert (await got(address, "/livez")).json() == {"status": "failed", "failed": ["m"]}
        assert_refused(await posted(address, ["4"]), code="model_unavailable")
        await until(lambda: is_at_rest(gateway), address)


@dies
async def test_of_two_devices_the_one_that_lives_serves_on(tmp_path):
    held, dying = HeldEncoder(), HeldEncoder()
    gateway = gateway_of(held, dying, folder=tmp_path)
    with served(gateway) as address:
        with dying.held():
            with held.held():
                tasks = sent(address, ["1"], ["2 " * 16])  # too different to share a batch, so each device has one
                for each in (held, dying):
                    assert await asyncio.to_thread(each.is_running.wait, BOUND_SECONDS)
                dying.may_go_on.set()
                for _ in range(MAX_RESTARTS + 1):
                    assert_refused(await posted(address, ["kills"]), code="model_unavailable")
            replies = await asyncio.gather(*tasks)
        assert [reply.status for reply in replies] == [200, 200]
        assert_vectors(await posted(address, ["3"]), ["3"])
        assert (await got(address, "/livez")).status == 200


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
async def test_a_text_without_a_vector_fails_its_own_request_and_no_other(encoder, tmp_path, encoding_format):
    gateway = gateway_of(encoder, folder=tmp_path)
    requests = [["1 2", "3"], ["4", "5 nan", "3"], ["3", "6"], ["nan"]]
    with served(gateway) as address:
        with encoder.held():
            first = await begun(address, encoder, "0")
            tasks = sent(address, *requests, encoding_format=encoding_format)
            await until(lambda: num_queued(gateway) >= 5, address)  # "3" waits once, for whoever asks for it
        good, bad, other, alone = await asyncio.gather(*tasks)
        assert_vectors(await first, ["0"])
        for reply, texts in ((good, requests[0]), (other, requests[2])):
            assert_given(reply, texts, encoding_format)
        for reply, where in ((bad, "input[1]"), (alone, "input[0]")):
            assert reply.status == 500
            assert reply.headers["x-should-retry"] == "false"
            assert "retry-after" not in reply.headers
            assert reply.json()["error"] == {
                "message": f"The model cannot embed '{where}': it gave a vector with values that are not numbers.",
                "type": "server_error",
                "param": "input",
                "code": "unembeddable_input",
            }
        assert_given(await posted(address, ["3", "4"], encoding_format=encoding_format), ["3", "4"], encoding_format)


def assert_given(reply, texts, encoding_format):
    assert reply.status == 200, reply
    rows = [item["embedding"] for item in reply.json()["data"]]
    if encoding_format == "base64":
        rows = [np.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows]
    np.testing.assert_allclose(rows, [embedded(text) for text in texts], atol=1e-6)


async def test_a_model_that_gives_nothing_but_nan_never_answers_with_it(encoder, tmp_path):
    encoder.nan_on = set(range(2000))
    with served(gateway_of(encoder, folder=tmp_path)) as address:
        for fields in ({}, {"encoding_format": "base64"}, {"dimensions": 2}, {"normalize": False}):
            for texts in ("1", ["1"], ["1 " * 40]):  # the last is joined from windows
                reply = await posted(address, texts, **fields)
                assert (reply.status, reply.json()["error"]["code"]) == (500, "unembeddable_input")


async def test_500_connections_fill_the_queue_and_each_is_answered(encoder, tmp_path):
    """The device is held until everybody the queue has no room for was told so."""
    gateway = gateway_of(encoder, folder=tmp_path, max_queue_tokens=400)
    with served(gateway) as address:
        with encoder.held():
            first = await begun(address, encoder, "0")
            tasks = sent(address, *([f"{number} {number}"] for number in range(1, NUM_CONNECTIONS + 1)))
            for refused in islice(asyncio.as_completed(tasks), 300):
                assert_refused(await refused)
            assert num_queued(gateway) == 200
        assert_vectors(await first, ["0"])
        replies = await asyncio.gather(*tasks)
        for number, reply in enumerate(replies, start=1):
            if reply.status == 200:
                assert_vectors(reply, [f"{number} {number}"])
        assert sum(reply.status == 200 for reply in replies) == 200
        await until(lambda: is_at_rest(gateway), address)
        assert_vectors(await posted(address, ["999"]), ["999"])


async def test_500_connections_with_one_text_are_one_piece_of_work(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path, max_queue_tokens=100)
    with served(gateway) as address:
        with encoder.held():
            first = await begun(address, encoder, "0")
            tasks = sent(address, *([["1 2 3"]] * NUM_CONNECTIONS))
            joined = {"model": "m", "result": "joined"}
            await until(lambda: metric(gateway, "gateway_cache_lookups_total", **joined) == NUM_CONNECTIONS - 1, address)
            assert num_queued(gateway) == 1
        await first
        for reply in await asyncio.gather(*tasks):
            assert_vectors(reply, ["1 2 3"])
        assert encoder.batches == [[1], [3]]
        await until(lambda: is_at_rest(gateway), address)


async def test_beyond_the_requests_held_at_once_500_connections_are_refused_before_they_are_read(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path, max_concurrent_requests=100)
    with served(gateway) as address:
        with encoder.held():
            first = await begun(address, encoder, "0")
            tasks = sent(address, *([str(number)] for number in range(1, NUM_CONNECTIONS + 1)))
            for refused in islice(asyncio.as_completed(tasks), NUM_CONNECTIONS - 99):
                assert_refused(await refused)
        assert_vectors(await first, ["0"])
        assert sum(reply.status == 200 for reply in await asyncio.gather(*tasks)) == 99
        await until(lambda: is_at_rest(gateway), address)
        assert_vectors(await posted(address, ["999"]), ["999"])


async def test_a_device_that_hangs_costs_503_in_time(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path, request_timeout_seconds=1)
    with served(gateway) as address:
        with encoder.held():
            first = await begun(address, encoder, "0")
            for task in (first, *sent(address, ["1"], ["2", "3"], ["2"])):
                assert_refused(await task, code="timeout")
            await until(lambda: is_at_rest(gateway), address)
        assert_vectors(await posted(address, ["1"]), ["1"])
