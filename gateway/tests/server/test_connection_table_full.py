"""Every place for a connection is taken: probes are answered, newcomers served, and only who waits is closed. On real sockets."""

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from msgspec import structs

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow, Secret, ServerSettings, StoreSettings
from gateway.metrics import Metrics
from gateway.server.client_address import TrustedProxies
from gateway.server.connection_table import PROBE_CONNECTIONS, Addresses, ConnectionTable
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import BOUND_SECONDS, assert_refused, got, reply_of
from gateway.tests.api.conftest import KEY

pytestmark = pytest.mark.usefixtures("quiet")

PROBES = ("/livez", "/readyz", "/health", "/metrics")
BODY = b'{"model": "m", "input": "hello"}'
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n" % (
    KEY.encode(),
    len(BODY),
)
GOOD = HEAD + BODY
PLACES = 20
SHORT_SECONDS = 0.2


@pytest.fixture
def serving(tmp_path):
    @asynccontextmanager
    async def serve(**settings):
        (tmp_path / "key").write_text(KEY)
        config = Config(
            server=ServerSettings(port=0, **settings),
            auth=AuthSettings(keys=Secret(file=str(tmp_path / "key"))),
            store=StoreSettings(data_dir=str(tmp_path)),
            models=(ModelRow(name="m", backend="fake"),),
        )
        gateway = Gateway(config, backends=[FakeBackend(m=FakeEmbedder())])
        with served(gateway) as address:
            async with AsyncExitStack() as house:
                yield gateway, address, house
            await asyncio.sleep(0)  # in which the connections that were aborted close

    return serve


class Client:
    """A connection that stays open until the test ends, or the server closes it."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, content):
        self.writer.write(content)

    async def reply(self):
        """The next one, read as far as its own length goes; status 0 where the connection is closed instead."""
        async with asyncio.timeout(BOUND_SECONDS):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return reply_of(b"")
            reply = reply_of(head)
            return reply_of(head + await self.reader.readexactly(int(reply.headers["content-length"])))

    async def rest(self):
        """What comes until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), BOUND_SECONDS)
        except ConnectionResetError:
            return b""


async def client(house, address, content=b"", *, source=None):
    reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0) if source else None)
    house.callback(lambda: writer.transport.abort())  # noqa: PLW0108 - a writer that nobody holds closes
    writer.write(content)
    return Client(reader, writer)


async def clients(house, address, number, content=b"", **options):
    return [await client(house, address, content, **options) for _ in range(number)]


async def busy(house, gateway, address, number, **options):
    """Clients whose requests are under way: their bodies are still to come."""
    before = gateway.admission.num_requests
    made = await clients(house, address, number, HEAD, **options)
    await until(lambda: gateway.admission.num_requests == before + number)
    return made


async def until(is_true):
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await asyncio.sleep(0.005)


def count(gateway, reason):
    return gateway.metrics.registry.get_sample_value("gateway_connections_cut_total", {"reason": reason})


def num_open(gateway, *states):
    value = gateway.metrics.registry.get_sample_value
    return sum(value("gateway_open_connections", {"state": state}) for state in states or ("active", "waiting"))


def begun(gateway):
    """Of how many connections a part of a head is here."""
    return sum(each.is_in_head for each in list(gateway.server.server_state.connections))


async def assert_probes_answered(address):
    for path in PROBES:
        assert (await got(address, path)).status == 200, path


async def assert_served(house, address):
    newcomer = await client(house, address, GOOD)
    assert (await newcomer.reply()).status == 200


STRANGERS = {
    "silent": b"",
    "empty lines": b"\r\n\r\n",
    "half a request line": b"GET /liv",
    "half a head": b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nx-half: ",
    "idle after a 401": b"GET /v1/models HTTP/1.1\r\nhost: g\r\n\r\n",
    "idle after a 404": b"GET /.env HTTP/1.1\r\nhost: g\r\n\r\n",
    "idle after a probe": b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n",
    "half a body after a 401": b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n{",
    "half a second head": b"GET /v1/models HTTP/1.1\r\nhost: g\r\n\r\nGET /v1/mod",
    "HTTP/1.0": b"GET /v1/models HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 100,
}


@pytest.mark.parametrize("content", STRANGERS.values(), ids=STRANGERS.keys())
async def test_strangers_who_hold_every_place_keep_out_neither_probes_nor_clients(serving, content):
    async with serving(max_connections=PLACES) as (gateway, address, house):
        [working] = await busy(house, gateway, address, 1)
        for _ in range(3):
            await clients(house, address, PLACES, content)
            await assert_probes_answered(address)
            await assert_served(house, address)
        assert num_open(gateway) <= PLACES + PROBE_CONNECTIONS
        assert count(gateway, "server_overloaded") == 0
        working.send(BODY)
        assert (await working.reply()).status == 200


async def test_the_longest_idle_one_is_closed_for_a_newcomer_and_no_other(serving):
    async with serving(max_connections=3) as (gateway, address, house):
        pool = await clients(house, address, 3)
        for each in (pool[1], pool[0], pool[2], pool[0]):  # so pool[1] has been idle for longest
            each.send(GOOD)
            assert (await each.reply()).status == 200
        await assert_served(house, address)
        assert await pool[1].rest() == b""
        for each in (pool[0], pool[2]):
            each.send(GOOD)
            assert (await each.reply()).status == 200
        assert count(gateway, "made_room") == 1
        assert num_open(gateway) == gateway.metrics.registry.get_sample_value("gateway_max_connections") == 3


async def test_a_head_that_drips_keeps_no_place(serving):
    async with serving(max_connections=2) as (gateway, address, house):
        dripping = await client(house, address, HEAD[:40])
        await until(lambda: begun(gateway) == 1)
        silent = await client(house, address)
        await until(lambda: num_open(gateway, "waiting") == 2)
        dripping.send(HEAD[40:60])
        await assert_served(house, address)
        assert_refused(reply_of(await dripping.rest()))
        silent.send(GOOD)
        assert (await silent.reply()).status == 200


async def test_a_client_that_was_idle_for_long_and_begins_a_request_is_not_the_next_to_go(serving):
    async with serving(max_connections=2) as (gateway, address, house):
        first, second = await clients(house, address, 2)
        await until(lambda: num_open(gateway, "waiting") == 2)
        first.send(HEAD[:40])
        await until(lambda: begun(gateway) == 1)
        await assert_served(house, address)
        assert await second.rest() == b""
        first.send(GOOD[40:])
        assert (await first.reply()).status == 200


async def test_where_requests_in_flight_hold_every_place_probes_alone_are_answered(serving):
    async with serving(max_connections=2) as (gateway, address, house):
        working = await busy(house, gateway, address, 2)
        await assert_probes_answered(address)
        assert (await got(address, "//livez/")).status == 200
        probe = await client(house, address, b"GET /readyz HTTP/1.1\r\nhost: g\r\n\r\n")
        assert (await probe.reply()).headers["connection"] == "close"
        for content in (GOOD, b"GET /v1/models HTTP/1.1\r\nhost: g\r\n\r\n", b"GET /docs HTTP/1.1\r\nhost: g\r\n\r\n"):
            refused = reply_of(await (await client(house, address, content)).rest())
            assert_refused(refused)
            assert refused.headers["connection"] == "close"
        assert count(gateway, "server_overloaded") == 3
        for each in working:
            each.send(BODY)
            assert (await each.reply()).status == 200
        await assert_served(house, address)
        assert count(gateway, "made_room") == 1


async def test_who_waits_beyond_the_places_is_served_once_there_is_one(serving):
    async with serving(max_connections=1) as (gateway, address, house):
        [working] = await busy(house, gateway, address, 1)
        waiting = await client(house, address, GOOD[:40])
        await until(lambda: num_open(gateway) == 2)
        working.send(BODY)
        assert (await working.reply()).status == 200
        waiting.send(GOOD[40:])
        assert (await waiting.reply()).status == 200


async def test_what_is_kept_for_probes_is_bounded_and_strangers_cannot_fill_it(serving):
    async with serving(max_connections=1) as (gateway, address, house):
        await busy(house, gateway, address, 1)
        await clients(house, address, PROBE_CONNECTIONS + 50)
        await until(lambda: count(gateway, "made_room") == 50)
        await assert_probes_answered(address)
        assert num_open(gateway) <= 1 + PROBE_CONNECTIONS


async def test_slow_heads_are_timed_out_in_a_full_house_too(serving):
    async with serving(max_connections=2, header_timeout_seconds=SHORT_SECONDS) as (_, address, house):
        slow = await clients(house, address, 2, HEAD[:40])
        assert [reply_of(await each.rest()).status for each in slow] == [408, 408]


async def test_idle_connections_hold_up_no_stop_and_what_is_in_flight_is_answered(serving):
    async with serving(max_connections=500) as (gateway, address, house):
        idle = await clients(house, address, 450)
        [working] = await busy(house, gateway, address, 1)
        gateway.server.loop.call_soon_threadsafe(gateway.stop)
        await until(lambda: gateway.is_draining)
        await assert_probes_of_a_drain(address)
        working.send(BODY)
        assert (await working.reply()).status == 200
        assert [await each.rest() for each in idle] == [b""] * len(idle)


async def assert_probes_of_a_drain(address):
    assert [(await got(address, path)).status for path in ("/livez", "/readyz")] == [200, 503]


async def test_a_reply_that_nobody_reads_gives_its_place_up_last_of_all(serving):
    async with serving(max_connections=1) as (gateway, address, house):
        greedy = await client(house, address, b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nhost: g\r\n\r\n" * 20)
        greedy.writer.transport.pause_reading()
        await until(lambda: len(gateway.server.slow_readers.connections) == 1)
        async with asyncio.timeout(BOUND_SECONDS):
            while (reply := await (await client(house, address, GOOD)).reply()).status != 200:
                assert_refused(reply)
                await assert_probes_answered(address)
        assert count(gateway, "made_room") == 1


async def test_one_address_is_held_to_its_own_bound(serving):
    async with serving(max_connections=100, max_connections_per_address=2) as (gateway, address, house):
        working = await busy(house, gateway, address, 2)
        refused = reply_of(await (await client(house, address, GOOD)).rest())
        assert_refused(refused)
        assert "from your address" in refused.json()["error"]["message"]
        assert count(gateway, "address_limit") == 1
        await assert_probes_answered(address)
        other = await client(house, address, GOOD, source="127.0.0.2")
        assert (await other.reply()).status == 200
        working[0].send(BODY)
        assert (await working[0].reply()).status == 200
        await assert_served(house, address)  # in the place of that one, which is idle now
        assert await working[0].rest() == b""
        assert await settled(gateway)


async def settled(gateway):
    """All are gone, and of none anything is left to be counted."""
    table = gateway.server.table
    return table.placed.num_open == sum(group.num_open for group in table.by_address.values())


async def test_trusted_proxies_are_many_clients_and_have_no_bound(serving):
    async with serving(max_connections_per_address=1, trusted_proxies=("127.0.0.0/8",)) as (gateway, address, house):
        await busy(house, gateway, address, 3)
        await assert_served(house, address)


async def test_a_new_bound_holds_without_a_restart(serving):
    async with serving() as (gateway, address, house):
        await busy(house, gateway, address, 2)
        config = structs.replace(gateway.config, server=structs.replace(gateway.config.server, max_connections_per_address=1))
        renewal = asyncio.run_coroutine_threadsafe(gateway.swap.renew(config), gateway.server.loop)
        await asyncio.wrap_future(renewal)
        assert_refused(reply_of(await (await client(house, address, GOOD)).rest()))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_whose_connections_are_counted_together(one, other, is_same):
    address_of = Addresses(TrustedProxies(())).of
    assert (address_of(one) == address_of(other)) == is_same


class Member:
    """A connection as the table sees it; on a Unix socket where `peer` is None."""

    def __init__(self, peer):
        self.peer, self.groups, self.is_closed = peer, (), False

    def make_room(self):
        self.is_closed = True


def test_a_unix_socket_has_no_address_to_be_counted_by():
    table = ConnectionTable(ServerSettings(max_connections_per_address=1), Metrics(), cut_slowest=lambda: False)
    members = [Member(None), Member(None), Member("::1")]
    assert [table.enter(member) for member in members] == [None] * 3
    for member in members:
        table.leave(member)
        table.leave(member)
    assert (table.num_open, table.num_waiting, table.by_address) == (0, 0, {})


FEW_FILES = 700
LIMITED = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({{soft}}, {FEW_FILES}))
from gateway import log
from gateway.server.open_files import affordable_connections
log.configure(level="info", line_format="json")
print(affordable_connections(int(sys.argv[1])), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def affordable(max_connections, *, soft):
    command = [sys.executable, "-c", LIMITED.format(soft=soft), str(max_connections)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return tuple(map(int, done.stdout.split())), [json.loads(line) for line in done.stderr.splitlines()]


def test_the_soft_limit_on_open_files_is_raised_as_far_as_it_is_needed():
    (number, limit), lines = affordable(50, soft=200)
    assert (number, limit) == (50, 50 + PROBE_CONNECTIONS + 512)
    assert [line["event"] for line in lines] == ["open_files_raised"]


def test_too_low_a_limit_on_open_files_is_warned_of_and_holds_fewer_connections():
    (number, limit), lines = affordable(4096, soft=200)
    assert (number, limit) == (FEW_FILES - PROBE_CONNECTIONS - 512, FEW_FILES)
    warning = lines[-1]
    assert (warning["event"], warning["level"], warning["limit"]) == ("open_files_limit", "warning", FEW_FILES)
    assert warning["needed"] == 4096 + PROBE_CONNECTIONS + 512
    assert "LimitNOFILE" in warning["hint"]


def test_a_limit_that_is_high_enough_is_left_alone():
    assert affordable(10, soft=FEW_FILES) == ((10, FEW_FILES), [])
