"""What the settings of batches, and the limits of their keys, allow and refuse."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.backoff import Backoff
from gateway.config import LimitSettings, ModelRow, ServerSettings
from gateway.testing.fakes import FakeEmbedder, FakeReranker
from gateway.tests.batches.conftest import NearBackend, client_of, content, created, ended, line, upload, working

ROWS = (ModelRow(name="m", backend="fake"), ModelRow(name="other", backend="fake"))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("gateway.batches.run.RETRIES", Backoff(first_seconds=0.02, max_seconds=0.02))
    monkeypatch.setattr("gateway.batches.run.QUOTA_SECONDS", 0.02)


@pytest.mark.parametrize(
    ("settings", "inputs", "code", "said"),
    [
        ({"max_requests": 2}, ["a", "b", "c"], "too_many_tasks", "The maximum number of requests in a batch is 2."),
        (
            {"max_inputs": 3},
            ["a", ["b", "c", "d"]],
            "too_many_inputs",
            "have 4 inputs. The maximum number of inputs in a batch is 3.",
        ),
    ],
)
async def test_a_file_of_too_much_fails_and_one_of_just_as_much_does_not(make, settings, inputs, code, said):
    async with working(make(**settings)) as gateway, client_of(gateway) as client:
        lines = [line(f"id-{number}", each) for number, each in enumerate(inputs)]
        done = await ended(client, await created(client, await upload(gateway, b"".join(lines))))
        assert (done["status"], done["output_file_id"]) == ("failed", None)
        [error] = done["errors"]["data"]
        assert (error["code"], error["line"]) == (code, None)
        assert error["message"].endswith(said)
        fitting = [*lines[:1], line("fits", inputs[1][:2])]
        done = await ended(client, await created(client, await upload(gateway, b"".join(fitting))))
        assert done["status"] == "completed"


async def test_a_batch_of_a_file_of_too_many_bytes_is_refused(make):
    async with working(make(max_file_bytes=len(line("a")))) as gateway, client_of(gateway) as client:
        await created(client, await upload(gateway, line("a")))
        body = {"input_file_id": await upload(gateway, line("ab")), "endpoint": "/v1/embeddings", "completion_window": "24h"}
        refused = await client.post("/v1/batches", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input_file_id")


async def test_a_key_with_as_many_unfinished_batches_as_it_may_have_is_told_when_to_ask_again(make, embedder):
    embedder.gate = asyncio.Event()
    async with working(make(max_unfinished_per_key=1)) as gateway, client_of(gateway) as client:
        file = await upload(gateway, line("a"))
        batch = await created(client, file)
        body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        refused = await client.post("/v1/batches", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) > 30
        embedder.gate.set()
        await ended(client, batch)
        await ended(client, await created(client, file))


@pytest.mark.parametrize("several_models", [False, True])
async def test_a_file_names_one_model_or_by_setting_several(make, embedder, several_models):
    backends = [NearBackend(m=embedder, other=FakeEmbedder(fingerprint="e" * 24 + ".fake-float32"), r=FakeReranker())]
    async with (
        working(make(several_models=several_models, models=ROWS, backends=backends)) as gateway,
        client_of(gateway) as client,
    ):
        lines = line("a") + line("b", model="other") + line("c")
        done = await ended(client, await created(client, await upload(gateway, lines)))
        if several_models:
            replies = await content(gateway, done["output_file_id"])
            assert [each["response"]["body"]["model"] for each in replies] == ["m", "other", "m"]
        else:
            assert done["status"] == "failed"
            assert [(each["code"], each["line"]) for each in done["errors"]["data"]] == [("mismatched_model", 2)]


async def test_a_name_that_no_database_takes_is_named_by_its_line(make):
    async with working(make()) as gateway, client_of(gateway) as client:
        done = await ended(client, await created(client, await upload(gateway, line("a") + line("b", model="m\0"))))
        assert [(each["code"], each["param"], each["line"]) for each in done["errors"]["data"]] == [
            ("invalid_value", "body.model", 2)
        ]


async def test_a_discount_is_taken_off_limit_and_usage(make):
    limits = LimitSettings(tokens_per_minute=1, tokens_burst=1000)
    async with working(make(token_discount=0.5, limits=limits)) as gateway, client_of(gateway) as client:
        lines = b"".join(line(str(number), "two words") for number in range(50))
        done = await ended(client, await created(client, await upload(gateway, lines)))
        assert done["usage"]["total_tokens"] == 100
        [counts] = gateway.access_control.recorder.pending.values()
        assert (counts.num_tokens, counts.num_requests) == (50, 50)
        asked = await client.post("/v1/embeddings", json={"model": "m", "input": "one"})
        assert asked.headers["x-ratelimit-remaining-tokens"] == str(1000 - 50 - 1)


async def test_a_limit_of_tokens_is_waited_for(make):
    limits = LimitSettings(tokens_per_minute=300_000, tokens_burst=2048)
    async with working(make(limits=limits)) as gateway, client_of(gateway) as client:
        lines = b"".join(line(str(number), "word") for number in range(4096))
        with capture_logs() as seen:
            done = await ended(client, await created(client, await upload(gateway, lines)))
        assert done["request_counts"] == {"total": 4096, "completed": 4096, "failed": 0}
        assert "rate_limit_exceeded" in codes_of_waits(seen)


async def test_a_spent_budget_is_waited_for_until_it_is_raised(make):
    async with working(make()) as gateway:
        text, key = new_key()
        access = gateway.access_control
        access.store.add(key, policy_of({"token_budget": 100}), by="cli:somebody")
        await access.snapshot.renew()
        async with client_of(gateway, text) as client:
            lines = b"".join(line(str(number), "word") for number in range(7000))
            with capture_logs() as seen:
                batch = await created(client, await upload(gateway, lines, key=text))
                async with asyncio.timeout(20):
                    while "insufficient_quota" not in codes_of_waits(seen):
                        await asyncio.sleep(0.01)
            found = (await client.get(f"/v1/batches/{batch['id']}")).json()
            assert found["status"] == "in_progress"
            assert found["request_counts"]["completed"] < 7000
            access.store.amend(key.public_id, {"token_budget": 1_000_000}, by="cli:somebody")
            await access.snapshot.renew()
            done = await ended(client, batch)
            assert done["request_counts"] == {"total": 7000, "completed": 7000, "failed": 0}


def codes_of_waits(seen):
    return {each["code"] for each in seen if each["event"] == "batch_waits"}


async def test_a_line_that_is_too_long_is_named_and_one_of_just_as_many_bytes_is_a_request(make):
    whole = line("a", "x" * 1000)
    server = ServerSettings(max_body_bytes=len(whole) - 1)
    async with working(make(server=server)) as gateway, client_of(gateway) as client:
        sent = whole + line("b", "x" * 1001) + line("c", "x" * 500_000) + line("d")
        done = await ended(client, await created(client, await upload(gateway, sent)))
        assert [(each["code"], each["line"]) for each in done["errors"]["data"]] == [
            ("request_too_large", 2), ("request_too_large", 3),
        ]  # fmt: skip
        done = await ended(client, await created(client, await upload(gateway, whole.rstrip())))
        assert done["status"] == "completed"
