"""A gateway told to stop under load: who was let in is answered, who comes later is refused, and `serve` ends."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.tests.api.client import assert_refused, posted, until
from gateway.tests.api.faulty import assert_vectors, gateway_of, metric
from gateway.tests.api.served import served

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
    await until(lambda: gateway.road.admission.num_requests == len(TEXTS), address)


async def test_whoever_was_let_in_is_served_before_it_ends(encoder, thread, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path)

    def drain():
        gateway.drain()
        encoder.may_go_on.set()

    with encoder.held():
        with served(gateway) as address:
            replies = thread.submit(asyncio.run, crowd(address))
            await all_let_in(gateway, address)
            gateway.server.on_stop = drain
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
