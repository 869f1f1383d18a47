"""A gateway told to stop under load: who was let in is answered, who comes later is refused, and `serve` ends."""

import asyncio
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.api.error_handler import error_response
from gateway.config import ServerSettings
from gateway.metrics import Metrics
from gateway.server.server import Server
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import assert_refused, got, posted, until
from gateway.tests.api.faulty import assert_vectors, gateway_of, metric

pytestmark = pytest.mark.usefixtures("quiet")

TEXTS = [f"{number} {number}" for number in range(200)]
NUM_STREAMS = 20


@pytest.fixture
def thread():
    """For clients that must go on while the test's own thread waits for `serve` to end."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


async def crowd(address):
    """What each of many clients at once was answered."""
    return await asyncio.gather(*(posted(address, [text]) for text in TEXTS))


async def stream(address):
    """What clients were answered who ask again and again, each until nobody listens any more."""
    replies = []

    async def client(number):
        while True:
            try:
                replies.append(await posted(address, [TEXTS[(number + len(replies)) % len(TEXTS)]]))
            except ConnectionError:
                return

    await asyncio.gather(*map(client, range(NUM_STREAMS)))
    return replies


async def all_let_in(gateway, address):
    await until(lambda: gateway.admission.num_requests == len(TEXTS), address)


async def test_whoever_was_let_in_is_served_before_it_ends(encoder, thread, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path)

    def drain():
        gateway.drain()
        encoder.may_go_on.set()

    with encoder.held():
        with served(gateway) as address:
            replies = thread.submit(asyncio.run, crowd(address))
            await all_let_in(gateway, address)
            gateway.server.on_drain = drain
        for reply, text in zip(replies.result(), TEXTS, strict=True):
            assert_vectors(reply, [text])


async def test_whoever_cannot_be_served_in_time_is_told_to_come_back(encoder, thread, tmp_path, capfd):
    gateway = gateway_of(encoder, folder=tmp_path, drain_timeout_seconds=1)
    with encoder.held():
        with served(gateway) as address:
            replies = thread.submit(asyncio.run, crowd(address))
            replies.add_done_callback(lambda _: encoder.may_go_on.set())
            await all_let_in(gateway, address)
        for reply in replies.result():
            assert_refused(reply)
    assert "Exception in ASGI application" not in capfd.readouterr().err


async def test_a_stream_of_requests_ends_in_answers_and_closed_connections(encoder, thread, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path)
    with served(gateway) as address:
        replies = thread.submit(asyncio.run, stream(address))
        await until(lambda: metric(gateway, "gateway_requests_total", model="m", outcome="ok") > len(TEXTS), address)
    statuses = Counter(reply.status for reply in replies.result())
    assert statuses[200] > len(TEXTS)
    assert set(statuses) <= {0, 200, 503}  # 0: closed without an answer, so never let in
    for reply in replies.result():
        if reply.status == 503:
            assert_refused(reply)


async def test_a_leaving_gateway_serves_on_says_that_it_is_not_ready_and_closes_connections(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path, drain_delay_seconds=600)
    with served(gateway) as address:
        assert (await got(address, "/readyz")).status == 200
        gateway.server.handle_exit(signal.SIGTERM, None)
        ready, alive, reply = await got(address, "/readyz"), await got(address, "/livez"), await posted(address, ["1"])
        assert (ready.status, ready.json()) == (503, {"status": "draining"})
        assert alive.status == 200
        assert_vectors(reply, ["1"])
        assert reply.headers["connection"] == "close"
        gateway.server.handle_exit(signal.SIGTERM, None)


async def test_a_draining_gateway_refuses_new_work_in_words_while_old_work_runs(encoder, thread, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path)
    with encoder.held(), served(gateway) as address:
        replies = thread.submit(asyncio.run, crowd(address))
        await all_let_in(gateway, address)
        gateway.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: gateway.is_draining, address)
        refused = await posted(address, ["1"])
        encoder.may_go_on.set()
    assert_refused(refused)
    assert refused.headers["connection"] == "close"
    for reply, text in zip(replies.result(), TEXTS, strict=True):
        assert_vectors(reply, [text])


@pytest.mark.parametrize("delay_seconds", [0, 600])
async def test_a_second_signal_ends_at_once(encoder, thread, tmp_path, delay_seconds):
    gateway = gateway_of(encoder, folder=tmp_path, drain_delay_seconds=delay_seconds, drain_timeout_seconds=600)
    with encoder.held():
        with served(gateway) as address:
            replies = thread.submit(asyncio.run, crowd(address))
            await all_let_in(gateway, address)
            gateway.server.handle_exit(signal.SIGTERM, None)
            gateway.server.handle_exit(signal.SIGTERM, None)
            started = time.monotonic()
        assert time.monotonic() - started < 10  # of 600 seconds' patience
        for reply in replies.result():
            assert reply.status in {0, 503}


async def test_ctrl_c_waits_for_no_balancer(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path, drain_delay_seconds=600)
    with served(gateway):
        gateway.server.handle_exit(signal.SIGINT, None)
    assert gateway.is_draining


async def test_a_signal_only_leaves_word():
    """What it interrupts may hold the log's lock: to log from there would wait for itself."""
    told = []
    server = Server(
        None,
        ServerSettings(),
        metrics=Metrics(),
        render_error=error_response,
        on_leave=lambda: told.append("leaving"),
        on_drain=lambda: told.append("draining"),
        is_idle=lambda: True,
    )
    server.loop = asyncio.get_running_loop()
    server.handle_exit(signal.SIGTERM, None)
    assert (told, server.should_exit) == ([], False)
    await asyncio.sleep(0)
    assert (told, server.should_exit, server.force_exit) == (["leaving"], True, False)
    server.handle_exit(signal.SIGTERM, None)
    assert server.force_exit
