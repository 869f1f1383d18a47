"""Real gateways whose store hangs, is unavailable at their start, or learns of keys elsewhere: what callers and operators see."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

from gateway.testing.swallowing_proxy import SwallowingProxy
from gateway.tests.processes.conftest import running, until
from gateway.tests.processes.test_shared_store import BOUND_SECONDS, embed, until_answered

pytestmark = pytest.mark.timeout(180)
COMMAND_SECONDS = 60


@pytest.fixture
def proxy(postgres):
    with SwallowingProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def behind(postgres, proxy, tmp_path):
    """A gateway whose PostgreSQL is behind the proxy."""
    url = postgres.new_database().replace(f":{postgres.port}/", f":{proxy.port}/")
    with running(tmp_path, 0, GATEWAY__STORE__DATABASE_URL=url, GATEWAY__AUTH__MAX_SNAPSHOT_AGE_SECONDS="600") as process:
        yield process


def metric(process, name):
    text = httpx.get(f"{process.origin}/metrics").text
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])


def readiness(process):
    reply = httpx.get(f"{process.origin}/readyz")
    return reply.status_code, reply.json().get("without")


def ids_in(snapshot, *keys):
    content = snapshot.read_bytes() if snapshot.exists() else b""
    return [key["id"].encode() in content for key in keys]


def started_anew(process):
    """With a log of its own, so that `start` does not see the first one's."""
    process.log_file.write_text("")
    process.start()


async def test_a_key_made_anywhere_works_at_once_at_every_gateway(pair):
    """By a command, by the admin API of this gateway, and by that of another."""
    here, there = pair
    boss = here.made_key("--admin")
    for _ in range(5):
        made = here.made_key()
        for process in pair:
            async with process.client(made["key"]) as client:
                assert (await embed(client)).status_code == 200
    async with here.client(boss["key"]) as admin:
        for _ in range(5):
            made = (await admin.post("/admin/keys", json={})).json()
            for process in pair:
                async with process.client(made["key"]) as client:
                    assert (await embed(client)).status_code == 200
            rotated = (await admin.post(f"/admin/keys/{made['id']}/rotate", json={"grace": "0s"})).json()
            async with here.client(made["key"]) as old, here.client(rotated["key"]) as new, there.client(rotated["key"]) as far:
                assert [(await embed(client)).status_code for client in (old, new, far)] == [401, 200, 200]
            assert (await admin.post(f"/admin/keys/{made['id']}/revoke")).status_code == 200
            async with here.client(rotated["key"]) as client:
                assert (await embed(client)).status_code == 401


async def test_connections_that_are_swallowed_are_replaced_and_no_caller_sees_it(behind, proxy):
    made = behind.made_key()
    async with behind.client(made["key"]) as client:
        await until_answered(client, 200)
        num_accepted = proxy.num_accepted
        proxy.swallow()
        async with asyncio.timeout(BOUND_SECONDS):
            while "store_connection_dropped" not in behind.events():
                assert (await embed(client)).status_code == 200
                await asyncio.sleep(0.05)
        until(lambda: proxy.num_accepted > num_accepted, BOUND_SECONDS)
        assert metric(behind, "gateway_store_connections_dropped_total") >= 1
        new = behind.made_key()
        async with behind.client(new["key"]) as other:
            assert (await embed(other)).status_code == 200
    assert "key_store_unavailable" not in behind.events()
    until(lambda: has_written(behind), BOUND_SECONDS)  # a stop waits a second at most for a store that was last unavailable
    behind.stop()
    assert "usage_lost" not in behind.events()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("table", ["usage_writers", "spending"])
async def test_a_stop_whose_write_is_swallowed_writes_once_more(behind, proxy, table, workers):
    """With the flush at the stop as the only one."""
    made = behind.made_key()
    behind.stop()
    behind.environment |= {"GATEWAY__USAGE__FLUSH_SECONDS": "60", "GATEWAY__SERVER__WORKERS": workers}
    started_anew(behind)
    async with behind.client(made["key"]) as client:
        assert (await embed(client)).status_code == 200
    proxy.swallow_after = f"INSERT INTO {table}".encode()
    behind.stop()
    assert proxy.swallow_after is None
    events = behind.events()
    assert [event for event in events if event.startswith("usage_")] == ["usage_not_written", "usage_written_again"]
    assert events[-1] == "stopped"


def has_written(behind):
    """Whether every flush that failed was made up for."""
    return behind.events().count("usage_written_again") == behind.events().count("usage_not_written")


async def test_a_store_that_hangs_wholly_is_told_is_no_callers_wait_and_is_used_again(behind, proxy):
    boss = behind.made_key("--admin")
    async with behind.client(boss["key"]) as client:
        await until_answered(client, 200)
        proxy.swallow(also_new=True)
        until(lambda: "key_store_unavailable" in behind.events(), BOUND_SECONDS)
        assert metric(behind, "gateway_key_store_up") == 0
        assert metric(behind, "gateway_key_snapshot_age_seconds") > 1
        assert readiness(behind) == (200, {"keys": "snapshot"})
        assert (await embed(client)).status_code == 200
        async with behind.client("sk-gw-0123456789-" + "x" * 43) as stranger:
            assert (await embed(stranger)).status_code == 401
        reply = await client.post("/admin/keys", json={})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
        proxy.mend()
        until(lambda: "key_store_available" in behind.events(), BOUND_SECONDS)
        assert (await client.post("/admin/keys", json={})).status_code == 201
    assert metric(behind, "gateway_key_store_up") == 1
    until(lambda: has_written(behind), BOUND_SECONDS)
    behind.stop()
    assert "usage_lost" not in behind.events()


async def test_a_stop_while_the_store_hangs_waits_for_requests_and_hardly_for_the_store(behind, proxy):
    made = behind.made_key()
    async with behind.client(made["key"]) as client:
        await until_answered(client, 200)
        proxy.swallow(also_new=True)
        assert (await embed(client)).status_code == 200
    behind.stop()
    assert behind.events()[-2:] == ["usage_lost", "stopped"]


def test_a_command_against_a_store_that_hangs_ends_with_one_line(behind, proxy):
    proxy.swallow(also_new=True)
    for arguments in (["keys", "create"], ["keys", "list"], ["keys", "usage"]):
        command = [sys.executable, "-m", "gateway", *arguments]
        done = subprocess.run(
            command, env=behind.environment, cwd=behind.folder, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"[^\n]*the key database at 127\.0\.0\.1 cannot be used: [^\n]+\n", done.stderr), done.stderr


async def test_a_gateway_that_starts_without_its_store_serves_the_keys_known_last(postgres, tmp_path):
    settings = {"GATEWAY__STORE__DATABASE_URL": postgres.new_database(), "GATEWAY__AUTH__MAX_SNAPSHOT_AGE_SECONDS": "600"}
    with running(tmp_path, 0, **settings) as process:
        made, revoked = process.made_key(), process.made_key()
        process.run("keys", "revoke", revoked["id"])
        async with process.client(made["key"]) as client:
            await until_answered(client, 200)
        snapshot = process.folder / "keys.snapshot"
        until(lambda: ids_in(snapshot, made, revoked) == [True, False], BOUND_SECONDS)
        process.kill()
        assert made["key"].rpartition("-")[2].encode() not in snapshot.read_bytes()
        postgres.kill()
        try:
            started_anew(process)
            async with process.client(made["key"]) as client, process.client(revoked["key"]) as gone:
                assert (await embed(client)).status_code == 200
                assert (await embed(gone)).status_code == 401
            assert readiness(process) == (200, {"keys": "snapshot"})
        finally:
            postgres.start()
        until(lambda: "key_store_available" in process.events(), BOUND_SECONDS)
        new = process.made_key()
        async with process.client(new["key"]) as client:
            assert (await embed(client)).status_code == 200
        process.stop()
        [row] = json.loads(process.run("keys", "usage", made["id"], "--by", "month", "--json"))
        assert row["requests"] >= 1
        assert "key_snapshot_used" in process.events()


def test_without_a_file_to_believe_a_start_without_the_store_ends_with_one_line(postgres, tmp_path):
    settings = {"GATEWAY__STORE__DATABASE_URL": postgres.new_database()}
    with running(tmp_path, 0, **settings) as process:
        until((process.folder / "keys.snapshot").exists, BOUND_SECONDS)
        process.stop()
        process.environment["GATEWAY__AUTH__MAX_SNAPSHOT_AGE_SECONDS"] = "0.5"
        time.sleep(0.6)  # so old is the file then
        postgres.kill()
        try:
            with pytest.raises(AssertionError):
                started_anew(process)
            assert process.process.returncode
        finally:
            postgres.start()
    assert process.events() == ["key_snapshot_refused"]
    assert "cannot be used" in process.log.splitlines()[-1]


async def test_while_the_store_is_unavailable_its_keys_may_be_believed_for_longer_by_a_reload(postgres, tmp_path):
    """The time is raised in the file; what is known on disk is taken over."""
    config = tmp_path / "gateway.toml"
    config.write_text("[auth]\nmax_snapshot_age_seconds = 4\n")
    settings = {"GATEWAY__STORE__DATABASE_URL": postgres.new_database(), "GATEWAY_CONFIG": str(config)}
    with running(tmp_path, 0, **settings) as process:
        made = process.made_key()
        snapshot = process.folder / "keys.snapshot"
        until(lambda: snapshot.exists() and made["id"].encode() in snapshot.read_bytes(), BOUND_SECONDS)
        async with process.client(made["key"]) as client:
            assert (await embed(client)).status_code == 200
            postgres.kill()
            try:
                await until_answered(client, 503)
                config.write_text("[auth]\nmax_snapshot_age_seconds = 600\n")
                process.process.send_signal(signal.SIGHUP)
                await until_answered(client, 200)
            finally:
                postgres.start()
            until(lambda: process.events()[-1] == "key_store_available", BOUND_SECONDS)
            assert (await embed(client)).status_code == 200
        process.stop()
