"""Clients that leave, by the hundred and at every moment: what they asked for is forgotten, even while the device is busy."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import BOUND_SECONDS, connected, got, posted, request_of, sent, until
from gateway.tests.api.faulty import assert_vectors, gateway_of, is_at_rest, num_queued

pytestmark = pytest.mark.usefixtures("quiet")

NUM_CLIENTS = 300
NUM_WHO_STAY = 20


async def test_hundreds_who_leave_in_the_middle_of_sending_leave_nothing(encoder, tmp_path):
    """Each after another number of bytes, from none to all but the last."""
    gateway, chosen = gateway_of(encoder, folder=tmp_path), random.Random(1)
    with served(gateway) as address:
        async with AsyncExitStack() as visits:
            for _ in range(NUM_CLIENTS):
                _, writer = await visits.enter_async_context(connected(address))
                content = request_of(["1 2 3"])
                writer.write(content[: chosen.randrange(len(content))])
            await until(lambda: gateway.admission.num_requests > 0, address)
        await until(lambda: is_at_rest(gateway), address)
        assert encoder.batches == []
        assert_vectors(await posted(address, ["1 2 3"]), ["1 2 3"])


async def test_hundreds_who_leave_the_queue_take_nothing_from_those_who_stay(encoder, tmp_path):
    """Those who stay ask for what others asked for before them. All is as it should be before the device has time again."""
    gateway = gateway_of(encoder, folder=tmp_path)
    texts = [f"{number} {number}" for number in range(1, NUM_CLIENTS + 1)]
    with served(gateway) as address:
        with encoder.held():
            async with AsyncExitStack() as visits:
                _, writer = await visits.enter_async_context(connected(address))
                writer.write(request_of(["0"]))
                assert await asyncio.to_thread(encoder.is_running.wait, BOUND_SECONDS)
                for text in texts:
                    _, writer = await visits.enter_async_context(connected(address))
                    writer.write(request_of([text]))
                await until(lambda: num_queued(gateway) == NUM_CLIENTS, address)
                stay = sent(address, *([text] for text in texts[:NUM_WHO_STAY]))
                await until(lambda: gateway.admission.num_requests == 1 + NUM_CLIENTS + NUM_WHO_STAY, address)
            await until(lambda: gateway.admission.num_requests == num_queued(gateway) == NUM_WHO_STAY, address)
        for reply, text in zip(await asyncio.gather(*stay), texts, strict=False):
            assert_vectors(reply, [text])
        assert sum(map(len, encoder.batches)) == 1 + NUM_WHO_STAY
        await until(lambda: is_at_rest(gateway), address)


@pytest.mark.parametrize("num_bytes", [1, 60_000, 70_000, 1_000_000])
async def test_who_leaves_the_queue_is_noticed_however_large_the_body_was(encoder, tmp_path, num_bytes):
    """uvicorn stops reading a connection whose body is above 64 KB until the application receives again."""
    gateway = gateway_of(encoder, folder=tmp_path)
    with served(gateway) as address:
        with encoder.held():
            async with connected(address) as (_, first):
                first.write(request_of(["0"]))
                assert await asyncio.to_thread(encoder.is_running.wait, BOUND_SECONDS)
                async with connected(address) as (_, writer):
                    writer.write(request_of(["1 2 3"], user="u" * num_bytes))
                    await until(lambda: num_queued(gateway) > 0, address)
                await until(lambda: num_queued(gateway) == 0 and gateway.admission.num_requests == 1, address)
        await until(lambda: is_at_rest(gateway), address)


@pytest.mark.parametrize("seed", range(3))
async def test_hundreds_who_leave_while_they_are_answered_leave_nothing(encoder, tmp_path, seed):
    gateway, chosen = gateway_of(encoder, folder=tmp_path), random.Random(seed)

    async def visit(number):
        async with connected(address) as (reader, writer):
            writer.write(request_of([f"{number} {word}" for word in range(chosen.randrange(1, 40))]))
            await chosen.choice([lambda: asyncio.sleep(0), writer.drain, lambda: got(address, "/livez"), lambda: reader.read(1)])()

    with served(gateway) as address:
        async with asyncio.timeout(BOUND_SECONDS):
            await asyncio.gather(*map(visit, range(NUM_CLIENTS)))
        await until(lambda: is_at_rest(gateway), address)
        assert_vectors(await posted(address, ["1", "2 3"]), ["1", "2 3"])
