"""What becomes of a batch that is cut short: by a stop, a death, another gateway, a failing store, a cancellation, its time."""

import asyncio
import gzip
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import pytest

from gateway.access.keys.audit import history
from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.backoff import Backoff
from gateway.batches.runner import MAX_DEATHS
from gateway.batches.store import LeaseLost
from gateway.config import FileSettings, LimitSettings, ServerSettings
from gateway.errors import KeyStoreUnavailable, Overloaded, StorageQuotaExceeded, StorageUnavailable, StoreUnavailable
from gateway.testing.fakes import FakeEmbedder
from gateway.tests.batches.conftest import KEY, OTHER_KEY, backend_of, client_of, content, created, ended, line, upload, working

SHORT = 0.5  # a lease that soon ends, where a dead gateway's must
NUMBER = 7000  # four slices


@pytest.fixture
def lines():
    return b"".join(line(f"id-{number}", f"text {number}") for number in range(NUMBER))


def held(embedder):
    """From now on the embedder waits."""
    embedder.gate = asyncio.Event()
    embedder.is_waiting.clear()
    return embedder.gate


async def answered_once(gateway, batch):
    """Asserts that each request has one reply, in the file's order."""
    found = await content(gateway, batch["output_file_id"])
    assert [each["custom_id"] for each in found] == [f"id-{number}" for number in range(NUMBER)]
    assert batch["request_counts"] == {"total": NUMBER, "completed": NUMBER, "failed": 0}
    return found


async def begun(gateway, embedder, lines, *, after, until=2048, key=KEY, name="input.jsonl"):
    """A batch of which `after` slices are done, and the next is being embedded. Returns it."""
    reached = asyncio.Event()
    whole = embedder.embed

    async def embed(prepared):
        if embedder.num_embedded >= after and not reached.is_set():
            held(embedder)
            reached.set()
        return await whole(prepared)

    embedder.embed = embed
    async with client_of(gateway, key) as client:
        batch = await created(client, await upload(gateway, lines, key=key, name=name))
        async with asyncio.timeout(20):
            await reached.wait()
            while (await client.get(f"/v1/batches/{batch['id']}")).json()["request_counts"]["completed"] < after * until:
                await asyncio.sleep(0.01)
    return batch


async def die(gateway):
    """Ends the gateway as a kill does: nothing is written, and the lease is not given back."""
    runner = gateway.batches.runner
    for run in runner.runs.values():
        run.has_lost_lease = True
    await gateway.batches.close()
    await gateway.close()


async def test_a_killed_gateways_batch_is_gone_on_with_once_its_lease_is_over(make, embedder, lines):
    first = make(lease_seconds=SHORT)
    await first.start()
    await first.load()
    first.batches.start()
    batch = await begun(first, embedder, lines, after=2)
    await die(first)
    async with (
        working(make(lease_seconds=SHORT, backends=[backend_of(second := FakeEmbedder())])) as gateway,
        client_of(gateway) as client,
    ):
        done = await ended(client, batch)
        await answered_once(gateway, done)
        assert second.num_embedded == 2  # the slices that were done are not done again


async def test_a_stopped_gateway_gives_its_batch_back_at_once(make, embedder, lines):
    first = make(lease_seconds=3600)
    async with working(first):
        batch = await begun(first, embedder, lines, after=1)
        first.drain()
        embedder.gate.set()  # the slices in hand are finished
        async with asyncio.timeout(20):
            while first.batches.runner.runs:
                await asyncio.sleep(0.01)
    other = make(lease_seconds=3600, backends=[backend_of(second := FakeEmbedder())])
    async with working(other) as gateway, client_of(gateway) as client:
        await answered_once(gateway, await ended(client, batch))
    assert embedder.num_embedded + second.num_embedded == 4


async def test_ten_deaths_in_a_row_lose_and_double_nothing(make, lines):
    batch = None
    for number in range(10):
        embedder = FakeEmbedder()
        gateway = make(lease_seconds=SHORT, backends=[backend_of(embedder)])
        await gateway.start()
        await gateway.load()
        gateway.batches.start()
        if batch is None:
            batch = await begun(gateway, embedder, lines, after=0)
        else:
            await until_claimed(gateway, batch)
            await asyncio.sleep(0.01 * number)  # a death at any moment
        await die(gateway)
    async with working(make(lease_seconds=SHORT, backends=[backend_of(FakeEmbedder())])) as gateway, client_of(gateway) as client:
        await answered_once(gateway, await ended(client, batch))


async def until_claimed(gateway, batch):
    async with asyncio.timeout(20):
        while batch["id"] not in gateway.batches.runner.runs:
            if (await gateway.batches.records.run(gateway.batches.store.find, batch["id"])).has_ended:
                return
            await asyncio.sleep(0.01)


async def test_a_gateway_that_was_taken_for_dead_writes_nothing_more(make, embedder, lines):
    async with working(make(lease_seconds=SHORT)) as first, client_of(first) as client:
        batch = await begun(first, embedder, lines, after=1)
        run = first.batches.runner.runs[batch["id"]]
        stale = run.job
        await run.beat.close()  # it renews no more, as in a process that hangs
        second_embedder = FakeEmbedder()
        async with working(make(lease_seconds=SHORT, backends=[backend_of(second_embedder)])) as second:
            await until_claimed(second, batch)
            embedder.gate.set()
            done = await ended(client, batch)
            await answered_once(second, done)
        with pytest.raises(LeaseLost):
            first.batches.store.update(stale, total=1)


async def test_two_gateways_share_the_batches(make, lines):
    embedders = FakeEmbedder(), FakeEmbedder()
    gates = [held(each) for each in embedders]
    gateways = [make(max_running=2, backends=[backend_of(each)]) for each in embedders]
    async with working(gateways[0]), working(gateways[1]), client_of(gateways[0]) as client:
        file = await upload(gateways[0], lines)
        batches = [await created(client, file) for _ in range(4)]
        async with asyncio.timeout(20):
            while any(len(gateway.batches.runner.runs) < 2 for gateway in gateways):
                await asyncio.sleep(0.01)
        assert not gateways[0].batches.runner.runs.keys() & gateways[1].batches.runner.runs.keys()
        for gate in gates:
            gate.set()
        for batch in batches:
            await answered_once(gateways[0], await ended(client, batch))


async def test_batches_of_different_keys_go_first(make, embedder):
    held(embedder)
    async with working(make(max_running=2)) as gateway, client_of(gateway) as client, client_of(gateway, OTHER_KEY) as other:
        await gateway.batches.runner.background.close()
        file, others = await upload(gateway, line("a")), await upload(gateway, line("a"), key=OTHER_KEY)
        for _ in range(4):
            await created(client, file)
        late = await created(other, others)
        await gateway.batches.runner.claim_all()
        assert len(gateway.batches.runner.runs) == 2
        assert late["id"] in gateway.batches.runner.runs
        embedder.gate.set()


async def test_a_cancelled_batch_keeps_what_is_done_and_lists_the_rest(make, embedder, lines):
    async with working(make()) as gateway, client_of(gateway) as client:
        batch = await begun(gateway, embedder, lines, after=1)
        cancelled = (await client.post(f"/v1/batches/{batch['id']}/cancel")).json()
        assert cancelled["status"] == "cancelling"
        assert (await client.post(f"/v1/batches/{batch['id']}/cancel")).json()["status"] == "cancelling"
        embedder.gate.set()
        done = await ended(client, batch)
        assert done["status"] == "cancelled"
        outputs, errors = await content(gateway, done["output_file_id"]), await content(gateway, done["error_file_id"])
        assert [each["custom_id"] for each in [*outputs, *errors]] == [f"id-{number}" for number in range(NUMBER)]
        assert errors[0]["response"] is None
        assert errors[0]["error"]["code"] == "batch_cancelled"
        refused = await client.post(f"/v1/batches/{batch['id']}/cancel")
        assert refused.status_code == 409
        assert refused.headers["x-should-retry"] == "false"


async def test_a_batch_that_nobody_works_on_is_cancelled_too(make, embedder):
    held(embedder)
    async with working(make(max_running=1)) as gateway, client_of(gateway) as client:
        file = await upload(gateway, line("a"))
        batches = [await created(client, file) for _ in range(2)]
        await embedder.is_waiting.wait()
        batches.sort(key=lambda batch: batch["id"] not in gateway.batches.runner.runs)  # either goes first within a second
        first, second = batches
        await client.post(f"/v1/batches/{second['id']}/cancel")
        embedder.gate.set()
        done = await ended(client, second)
        assert done["status"] == "cancelled"
        assert done["output_file_id"] is None
        assert (await ended(client, first))["status"] == "completed"


async def test_a_batch_that_is_not_finished_in_time_expires(make, embedder, lines):
    async with working(make()) as gateway, client_of(gateway) as client:
        batch = await begun(gateway, embedder, lines, after=1)
        run = gateway.batches.runner.runs[batch["id"]]
        run.parts = replace(run.parts, clock=lambda: batch["expires_at"])
        embedder.gate.set()
        done = await ended(client, batch)
        assert done["status"] == "expired"
        outputs, errors = await content(gateway, done["output_file_id"]), await content(gateway, done["error_file_id"])
        assert len(outputs) + len(errors) == NUMBER
        assert errors[0]["error"] == {
            "code": "batch_expired", "message": "This request could not be executed before the completion window expired.",
        }  # fmt: skip


async def test_a_failing_database_and_a_full_disk_are_waited_for(make, embedder, lines):
    async with working(make()) as gateway, client_of(gateway) as client:
        failures = iter([KeyStoreUnavailable("gone"), KeyStoreUnavailable("gone", is_unsure=True)])
        append, create = gateway.batches.store.append, gateway.generation.files.create
        full = iter([StorageUnavailable(is_full=True)])

        def failing_append(*args, **more):
            found = append(*args, **more)  # the second failure: it was written, and its acknowledgement is lost
            if (error := next(failures, None)) is not None:
                raise error
            return found

        async def failing_create(*args, **more):
            if (error := next(full, None)) is not None:
                raise error
            return await create(*args, **more)

        file = await upload(gateway, lines)
        gateway.batches.store.append, gateway.generation.files.create = failing_append, failing_create
        batch = await created(client, file)
        await answered_once(gateway, await ended(client, batch))


async def test_an_input_file_that_cannot_be_read_for_a_while_is_waited_for(make, lines, monkeypatch):
    monkeypatch.setattr("gateway.batches.run.RETRIES", Backoff(first_seconds=0.01, max_seconds=0.01))
    async with working(make()) as gateway, client_of(gateway) as client:
        files, outage = gateway.generation.files, StorageUnavailable()
        outage.retry_after_seconds = 0.0
        failures, read = iter([outage] * 2 * (MAX_DEATHS + 1)), files.read

        async def failing(file, *, start=0):
            async for chunk in read(file, start=start):
                yield chunk
                if file.purpose == "batch" and (error := next(failures, None)) is not None:
                    raise error

        files.read = failing
        batch = await created(client, await upload(gateway, lines))
        await answered_once(gateway, await ended(client, batch))
        assert next(failures, None) is None


async def test_keys_that_nobody_can_check_for_a_while_are_waited_for(make, lines, monkeypatch):
    monkeypatch.setattr("gateway.batches.run.RETRIES", Backoff(first_seconds=0.01, max_seconds=0.01))
    async with working(make()) as gateway, client_of(gateway) as client:
        file, snapshot = await upload(gateway, lines), gateway.access_control.snapshot
        find_caller = snapshot.find_caller
        failures = iter([StoreUnavailable()] * (MAX_DEATHS + 1))

        def failing(key_id):
            if (error := next(failures, None)) is not None:
                error.retry_after_seconds = 0.0
                raise error
            return find_caller(key_id)

        snapshot.find_caller = failing
        batch = await created(client, file)
        await answered_once(gateway, await ended(client, batch))
        assert gateway.batches.runner.deaths == {}


async def test_a_model_that_is_overloaded_is_asked_again(make, embedder, lines):
    async with working(make()) as gateway, client_of(gateway) as client:
        embedder.raises = Overloaded(retry_after_seconds=0.1)
        batch = await created(client, await upload(gateway, lines))
        async with asyncio.timeout(20):
            while not embedder.prepared:
                await asyncio.sleep(0.01)
        embedder.raises = None
        await answered_once(gateway, await ended(client, batch))


async def test_a_batch_whose_model_was_changed_fails_by_its_name_and_keeps_what_is_done(make, embedder, lines):
    first = make()
    async with working(first):
        batch = await begun(first, embedder, lines, after=1)
        first.drain()
        embedder.gate.set()
    other = FakeEmbedder(fingerprint="e" * 24 + ".fake-float32")
    async with working(make(orphan_seconds=0.5, backends=[backend_of(other)])) as gateway, client_of(gateway) as client:
        done = await ended(client, batch)
        assert done["status"] == "failed"
        [error] = done["errors"]["data"]
        assert error["code"] == "model_changed"
        assert "'m'" in error["message"]
        assert other.num_embedded == 0
        outputs, errors = await content(gateway, done["output_file_id"]), await content(gateway, done["error_file_id"])
        assert len(outputs) >= 2048
        assert len(outputs) + len(errors) == NUMBER


async def test_a_gateway_with_another_model_leaves_a_batch_to_those_that_have_it(make, embedder, lines):
    first = make()
    async with working(first):
        batch = await begun(first, embedder, lines, after=1)
        first.drain()
        embedder.gate.set()
    other = FakeEmbedder(fingerprint="e" * 24 + ".fake-float32")
    async with working(make(orphan_seconds=60, backends=[backend_of(other)])):
        await asyncio.sleep(0.3)
        async with working(make(backends=[backend_of(FakeEmbedder())])) as gateway, client_of(gateway) as client:
            await answered_once(gateway, await ended(client, batch))
    assert other.num_embedded == 0


async def test_a_reload_cuts_no_slice_short(make, embedder, lines):
    async with working(make()) as gateway, client_of(gateway) as client:
        batch = await begun(gateway, embedder, lines, after=1)
        before = gateway.generation
        await gateway.swap.renew(msgspec.structs.replace(gateway.config, limits=LimitSettings(max_wait_seconds=1.0)))
        assert gateway.generation is not before
        assert before in gateway.swap.retired  # the slice in hand holds it open
        embedder.gate.set()
        await answered_once(gateway, await ended(client, batch))


async def test_a_revoked_keys_batch_fails(make, embedder, lines, tmp_path):
    async with working(make()) as gateway:
        batch = await begun(gateway, embedder, lines, after=1)
        find = partial(gateway.batches.records.run, gateway.batches.store.find, batch["id"])
        (tmp_path / "keys").write_text("another-key-of-more-than-24-characters\n")
        await gateway.access_control.snapshot.renew()
        embedder.gate.set()
        async with asyncio.timeout(20):
            while not (job := await find()).has_ended:
                await asyncio.sleep(0.01)
        assert job.status == "failed"
        assert job.errors[0].code == "key_revoked"


async def test_a_batch_whose_key_expires_meanwhile_fails_and_keeps_what_is_done(make, embedder, lines):
    async with working(make()) as gateway:
        text, key = new_key()
        access = gateway.access_control
        access.store.add(key, policy_of({"expires_at": datetime.now(UTC) + timedelta(days=1)}), by="cli:somebody")
        await access.snapshot.renew()
        batch = await begun(gateway, embedder, lines, after=1, key=text)
        access.snapshot.wall_clock = lambda: time.time() + 2 * 86_400
        embedder.gate.set()
        async with asyncio.timeout(20):
            while not (job := gateway.batches.store.find(batch["id"])).has_ended:
                await asyncio.sleep(0.01)
        assert (job.status, job.errors[0].code) == ("failed", "key_revoked")
        files = gateway.generation.files
        found = [each async for each in files.lines(await files.get(key.public_id, job.output_file_id))]
        assert len(found) == job.completed >= 2048


@pytest.mark.parametrize("is_converted", [False, True])
async def test_a_batch_whose_input_is_deleted_meanwhile_keeps_what_is_done(make, embedder, lines, is_converted):
    name = "input.jsonl.gz" if is_converted else "input.jsonl"
    first = make()
    async with working(first), client_of(first) as client:
        batch = await begun(first, embedder, gzip.compress(lines) if is_converted else lines, after=1, name=name)
        assert (await client.delete(f"/v1/files/{batch['input_file_id']}")).status_code == 200
        first.drain()
        embedder.gate.set()
        async with asyncio.timeout(20):
            while first.batches.runner.runs:
                await asyncio.sleep(0.01)
    async with working(make(backends=[backend_of(FakeEmbedder())])) as gateway, client_of(gateway) as client:
        done = await ended(client, batch)
        assert (done["status"], done["errors"]["data"][0]["code"]) == ("failed", "file_not_found")
        outputs = await content(gateway, done["output_file_id"])
        assert [each["custom_id"] for each in outputs] == [f"id-{number}" for number in range(done["request_counts"]["completed"])]
        assert 0 < len(outputs) < NUMBER
        listed = (await client.get("/v1/batches")).json()["data"]
        assert [each["id"] for each in listed] == [batch["id"]]


async def test_texts_of_batches_are_behind_all_others_and_in_no_log_and_no_audit(make, embedder, capfd):
    secret = "a secret of the client"
    async with working(make()) as gateway, client_of(gateway) as client:
        wrong = (
            line("secret-id-1", secret)
            + line("secret-id-2", [secret, 7])
            + line("secret-id-3", "")
            + line("secret-id-4", dimensions=0)
        )
        done = await ended(client, await created(client, await upload(gateway, wrong), metadata={"note": secret}))
        assert done["request_counts"] == {"total": 4, "completed": 1, "failed": 3}
        broken = await upload(gateway, wrong + b'{"%s"' % secret.encode())
        assert (await ended(client, await created(client, broken)))["status"] == "failed"
        rows = await upload(gateway, f"id;{secret}\n1;{secret}\n".encode(), name="rows.csv")
        assert (await ended(client, await created(client, rows, model="m")))["status"] == "failed"
        assert {inputs.service_class for inputs in embedder.prepared} == {"background"}
        events = history(gateway.batches.database, limit=100)
        assert [each.action for each in events] == ["batch_create"] * 3
    written = "".join(capfd.readouterr()) + repr(events)
    assert "batch_ended" in written
    assert secret not in written
    assert "secret-id" not in written


async def test_an_output_is_never_refused_for_the_keys_quota_and_counts_in_it(make, lines):
    quota = FileSettings(min_free_bytes=0, max_bytes_per_key=len(lines) + 1000)
    async with working(make(files=quota)) as gateway, client_of(gateway) as client:
        done = await ended(client, await created(client, await upload(gateway, lines)))
        await answered_once(gateway, done)
        with pytest.raises(StorageQuotaExceeded):
            await upload(gateway, b"one more")
        assert (await client.delete(f"/v1/files/{done['output_file_id']}")).status_code == 200
        await upload(gateway, b"one more")


async def test_a_gateway_that_takes_smaller_requests_goes_on_with_larger_ones(make, embedder):
    texts = [f"{number} " + "x" * 300_000 for number in range(6)]  # a slice each
    sent = b"".join(line(f"id-{number}", text) for number, text in enumerate(texts))
    first = make()
    async with working(first):
        batch = await begun(first, embedder, sent, after=1, until=1)
        first.drain()
        embedder.gate.set()
    other = make(server=ServerSettings(max_body_bytes=100_000), backends=[backend_of(FakeEmbedder())])
    async with working(other) as gateway, client_of(gateway) as client:
        done = await ended(client, batch)
        assert done["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
        found = await content(gateway, done["output_file_id"])
        assert [each["custom_id"] for each in found] == [f"id-{number}" for number in range(6)]
