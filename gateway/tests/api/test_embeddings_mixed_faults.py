"""All faults at once, from several threads, as a seed chooses: each request ends as it must, and nothing is left behind."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.engine.device import MAX_RESTARTS
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import assert_refused, connected, got, posted, request_of, until
from gateway.tests.api.faulty import assert_vectors, gateway_of, is_at_rest, metric

pytestmark = pytest.mark.usefixtures("quiet")

NUM_THREADS, NUM_CLIENTS, NUM_VISITS = 4, 10, 15
TEXTS = [f"{number} " * (1 + number % 20) for number in range(60)]  # few, so that many ask for the same at once
DEADLY = range(0, MAX_RESTARTS * NUM_CLIENTS, NUM_CLIENTS)  # seeds of clients who kill the device once; it survives that
dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Crowd:
    """What clients do, each by its own random numbers; `seen` counts how their requests ended."""

    def __init__(self, address, encoder):
        self.address = address
        self.encoder = encoder
        self.seen = Counter()

    async def posted(self, texts, **fields):
        """A 503 may be the answer to anything."""
        reply = await posted(self.address, texts, **fields)
        self.seen[reply.status] += 1
        if reply.status == 503:
            code = reply.json()["error"]["code"]
            assert code in {"server_overloaded", "model_unavailable"}  # the queue is full, or the device was restarted
            assert_refused(reply, code=code)
        return reply

    async def ask(self, chosen):
        texts = chosen.sample(TEXTS, chosen.randrange(1, 4))
        reply = await self.posted(texts)
        if reply.status != 503:
            assert_vectors(reply, texts)

    async def ask_for_what_has_no_vector(self, chosen):
        texts = chosen.sample(TEXTS, 3)
        place = chosen.randrange(3)
        texts[place] += " nan"
        reply = await self.posted(texts, encoding_format=chosen.choice(["float", "base64"]))
        if reply.status != 503:
            assert (reply.status, reply.json()["error"]["code"]) == (500, "unembeddable_input")
            assert f"'input[{place}]'" in reply.json()["error"]["message"]

    async def ask_together(self, chosen):
        text = chosen.choice(TEXTS)
        for reply in await asyncio.gather(*(self.posted([text, text]) for _ in range(20))):
            if reply.status != 503:
                assert_vectors(reply, [text, text])

    async def ask_wrongly(self, chosen):
        assert (await self.posted(chosen.choice([[], [""], ["a", 1], TEXTS[:1] * 2049]))).status == 400

    async def leave(self, chosen):
        content = request_of(chosen.sample(TEXTS, 3))
        async with connected(self.address) as (_, writer):
            writer.write(content[: chosen.randrange(2 * len(content))])
            for _ in range(chosen.randrange(3)):
                await got(self.address, "/livez")

    async def hold_the_device(self, chosen):
        with self.encoder.held():
            for _ in range(chosen.randrange(20)):
                await got(self.address, "/livez")

    async def kill_the_device(self, chosen):
        """Tried again for as long as the queue is full."""
        message = ""
        while "restarted" not in message:
            reply = await self.posted([f"kills {chosen.randrange(1000)}"])
            assert reply.status == 503
            message = reply.json()["error"]["message"]

    async def visit(self, seed):
        chosen = random.Random(seed)
        weights = {
            self.ask: 8,
            self.leave: 4,
            self.ask_for_what_has_no_vector: 3,
            self.ask_together: 1,
            self.ask_wrongly: 1,
            self.hold_the_device: 1,
        }
        visits = chosen.choices(list(weights), weights.values(), k=NUM_VISITS)
        if seed in DEADLY:
            visits[NUM_VISITS // 2] = self.kill_the_device
        for visit in visits:
            await visit(chosen)

    async def all_visit(self, seed):
        await asyncio.gather(*(self.visit(NUM_CLIENTS * seed + number) for number in range(NUM_CLIENTS)))


@dies
async def test_whatever_happens_at_once_each_request_ends_as_it_must(encoder, tmp_path):
    gateway = gateway_of(encoder, folder=tmp_path, max_queue_tokens=100)
    with served(gateway) as address:
        crowd = Crowd(address, encoder)
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            visits = [threads.submit(asyncio.run, crowd.all_visit(seed)) for seed in range(NUM_THREADS)]
            await asyncio.gather(*map(asyncio.wrap_future, visits))
        assert set(crowd.seen) == {200, 400, 500, 503}
        assert 1 <= metric(gateway, "gateway_device_restarts_total", model="m") <= MAX_RESTARTS
        await until(lambda: is_at_rest(gateway), address)
        assert_vectors(await posted(address, ["1", "2 3"]), ["1", "2 3"])
        assert (await got(address, "/livez")).status == 200
