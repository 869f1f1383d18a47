"""The admin API: keys made, limited, rotated, revoked and watched over HTTP, by admins alone."""

import asyncio
import gzip
import json

import jsonschema
import pytest

from gateway.access.usage.store import UsageStore, UsageTotals
from gateway.config import AdminSettings, AuthSettings, Config
from gateway.errors import ConfigurationError
from gateway.tests.access.conftest import path_of
from gateway.tests.access.keys.test_snapshot_changes import put_away
from gateway.tests.api.conftest import client_of
from gateway.tests.api.keys import BY, add, embedded, error_of, holder
from gateway.tests.api.openapi.schemas import hold

ROUTES = [
    ("GET", "/admin/keys"), ("POST", "/admin/keys"), ("GET", "/admin/keys/x"), ("PATCH", "/admin/keys/x"),
    ("POST", "/admin/keys/x/revoke"), ("POST", "/admin/keys/x/rotate"), ("GET", "/admin/usage"),
]  # fmt: skip


@pytest.fixture
async def gateway(make):
    gateway = make(admin=AdminSettings(enabled=True))
    await gateway.start()
    await gateway.load()
    yield gateway
    await gateway.close()


@pytest.fixture
async def admin(gateway):
    async with holder(gateway, is_admin=True, name="the admin") as client:
        yield client


@pytest.fixture
async def document(stranger):
    return (await stranger.get("/openapi.json")).json()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_admins_come_in(gateway, stranger, client, method, path):
    assert error_of(await stranger.request(method, path)) == (401, "invalid_request_error", None, None)
    assert error_of(await client.request(method, path)) == (403, "invalid_request_error", None, "insufficient_permissions")
    async with holder(gateway) as other:
        reply = await other.request(method, path, content=b"{nonsense")
        assert error_of(reply) == (403, "invalid_request_error", None, "insufficient_permissions")


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_it_is_off_unless_configured_and_never_under_v1(make, admin, method, path):
    assert error_of(await admin.request(method, f"/v1{path}"))[3] == "unknown_url"
    plain = make()
    await plain.start()
    async with holder(plain, is_admin=True) as client:
        assert error_of(await client.request(method, path))[3] == "unknown_url"
        assert not [path for path in (await client.get("/openapi.json")).json()["paths"] if "admin" in path]
    await plain.close()


def test_it_cannot_be_on_where_nobody_has_a_key():
    with pytest.raises(ConfigurationError, match=r"auth\.mode is 'none', yet admin\.enabled"):
        Config(auth=AuthSettings(mode="none"), admin=AdminSettings(enabled=True))


async def test_a_key_is_made_shown_once_and_works(gateway, admin, document):
    policy = {"name": "search", "models": ["m"], "requests_per_minute": 60, "token_budget": 100, "metadata": {"team": "a"}}
    made = await admin.post("/admin/keys", json=policy)
    hold(document, made)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    told = made.json()
    assert {name: told[name] for name in policy} == policy
    gateway.access_control.snapshot.refresh()
    async with client_of(gateway, authorization=f"Bearer {told['key']}") as client:
        assert (await embedded(client)).status_code == 200
    again = await admin.get(f"/admin/keys/{told['id']}")
    hold(document, again)
    assert told.pop("key") not in again.text
    assert again.json() == {**told, "history": again.json()["history"]}


async def test_terms_are_changed_one_by_one(gateway, admin, document):
    _, public_id = add(gateway, requests_per_minute=5, name="n")
    changed = await admin.patch(f"/admin/keys/{public_id}", json={"requests_per_minute": None, "models": ["a*"]})
    hold(document, changed)
    assert (changed.json()["requests_per_minute"], changed.json()["models"], changed.json()["name"]) == (None, ["a*"], "n")


async def test_a_key_is_revoked_once(gateway, admin, document):
    async with holder(gateway) as client:
        revoked = await admin.post(f"/admin/keys/{client.public_id}/revoke")
        hold(document, revoked)
        assert revoked.json()["state"] == "revoked"
        gateway.access_control.snapshot.refresh()
        assert (await embedded(client)).status_code == 401
        again = await admin.post(f"/admin/keys/{client.public_id}/revoke")
        hold(document, again)
        assert error_of(again) == (404, "invalid_request_error", "id", "key_not_found")


@pytest.mark.parametrize(("body", "old_works"), [(None, True), ({}, True), ({"grace": "1h"}, True), ({"grace": "0s"}, False)])
async def test_a_key_is_rotated_with_a_grace(gateway, admin, document, body, old_works):
    async with holder(gateway) as client:
        rotated = (
            await admin.post(f"/admin/keys/{client.public_id}/rotate", json=body)
            if body is not None
            else await admin.post(f"/admin/keys/{client.public_id}/rotate")
        )
        hold(document, rotated)
        assert rotated.json()["id"] == client.public_id
        assert (rotated.json()["old_secret_until"] is not None) is old_works
        gateway.access_control.snapshot.refresh()
        assert ((await embedded(client)).status_code == 200) is old_works
        async with client_of(gateway, authorization=f"Bearer {rotated.json()['key']}") as new:
            assert (await embedded(new)).status_code == 200


async def test_the_audit_trail_says_who_did_what_and_holds_no_secret(gateway, admin, document):
    made = (await admin.post("/admin/keys", json={"name": "n", "metadata": {"team": "a", "note": "private"}})).json()
    await admin.patch(f"/admin/keys/{made['id']}", json={"tokens_per_minute": 9})
    rotated = (await admin.post(f"/admin/keys/{made['id']}/rotate", json={"grace": "1h"})).json()
    gateway.access_control.store.revoke(made["id"], by=BY)
    shown = await admin.get(f"/admin/keys/{made['id']}")
    hold(document, shown)
    history = shown.json()["history"]
    assert [(event["action"], event["actor"]) for event in history] == [
        ("revoke", BY), *[(action, f"key:{admin.public_id}") for action in ("rotate", "limit", "create")]
    ]  # fmt: skip
    assert history[2]["detail"] == {"tokens_per_minute": 9}
    assert history[1]["detail"] == {"old_until": rotated["old_secret_until"]}
    assert history[3]["detail"]["metadata"] == ["note", "team"]
    kept = b"".join(path.read_bytes() for path in path_of(gateway.access_control.store).parent.iterdir() if path.is_file())
    for text in (made["key"], rotated["key"]):
        assert text.rpartition("-")[2] not in json.dumps(history)
        assert text.rpartition("-")[2].encode() not in kept


async def test_keys_are_listed_page_by_page(gateway, admin, document):
    ids = [admin.public_id, *(add(gateway)[1] for _ in range(4))]
    seen, after = [], ""
    while True:
        page = await admin.get(f"/admin/keys?limit=2{after}")
        hold(document, page)
        seen += [key["id"] for key in page.json()["data"]]
        if not page.json()["has_more"]:
            break
        after = f"&after={seen[-1]}"
    assert seen == ids
    assert error_of(await admin.get("/admin/keys?after=nobody"))[3] == "key_not_found"


async def test_usage_is_told_by_key_model_and_period(gateway, admin, client, document):
    UsageStore(gateway.access_control.store.database).add([UsageTotals("k", "m", "2020-01-01T00", 1, 2, 3, 4)])
    await embedded(client, text=["a", "b c"])
    await gateway.access_control.recorder.flush()
    told = await admin.get("/admin/usage")
    hold(document, told)
    [row] = told.json()["data"]
    assert (row["model"], row["requests"], row["inputs"], row["tokens"], row["cached_tokens"]) == ("m", 1, 2, 3, 0)
    assert len(row["period"]) == len("2026-11-25")
    assert [len(row["period"]) for row in (await admin.get("/admin/usage?by=month&since=5000d")).json()["data"]] == [7, 7]
    one = (await admin.get("/admin/usage?by=hour&since=5000d&limit=1")).json()
    assert (one["data"][0]["key"], one["has_more"]) == ("k", True)
    assert [row["key"] for row in (await admin.get("/admin/usage?since=5000d&key_id=k")).json()["data"]] == ["k"]
    assert (await admin.get("/admin/usage?since=5000d&offset=2")).json()["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "param", "code"),
    [
        ("POST", "/admin/keys", b"{", None, "invalid_json"),
        ("POST", "/admin/keys", b"\xff", None, "invalid_json"),
        ("POST", "/admin/keys", b"[" * 20_000, None, "invalid_json"),
        ("POST", "/admin/keys", b"[]", None, "invalid_type"),
        ("POST", "/admin/keys", b'{"rpm": 5}', "rpm", "invalid_value"),
        ("POST", "/admin/keys", b'{"requests_per_minute": 0}', "requests_per_minute", "invalid_value"),
        ("POST", "/admin/keys", b'{"models": "m"}', "models", "invalid_value"),
        ("POST", "/admin/keys", b'{"expires_at": "soon"}', "expires_at", "invalid_value"),
        ("PATCH", "/admin/keys/{id}", b'{"token_budget": 1e99}', "token_budget", "invalid_value"),
        ("POST", "/admin/keys/{id}/rotate", b'{"grace": "forever"}', "grace", "invalid_value"),
        ("POST", "/admin/keys/{id}/rotate", b'{"grace": 5}', "grace", "invalid_type"),
        ("POST", "/admin/keys/{id}/rotate", b'{"gracious": "5h"}', "gracious", "invalid_value"),
        ("GET", "/admin/keys?limit=1001", b"", "limit", "invalid_value"),
        ("GET", "/admin/keys?limit=0", b"", "limit", "invalid_value"),
        ("GET", "/admin/keys?limit=-1", b"", "limit", "invalid_value"),
        ("GET", "/admin/usage?limit=x", b"", "limit", "invalid_value"),
        ("GET", "/admin/usage?offset=1000001", b"", "offset", "invalid_value"),
        ("GET", "/admin/usage?by=year", b"", "by", "invalid_value"),
        ("GET", "/admin/usage?since=yesterday", b"", "since", "invalid_value"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_a_400_that_names_it_and_changes_nothing(gateway, admin, document, method, path, body, param, code):
    _, public_id = add(gateway)
    revision = gateway.access_control.store.read().revision
    reply = await admin.request(method, path.replace("{id}", public_id), content=body)
    assert error_of(reply) == (400, "invalid_request_error", param, code)
    hold(document, reply)
    assert gateway.access_control.store.read(revision) is None


async def test_a_number_that_is_out_of_range_is_called_so(admin):
    reply = await admin.post("/admin/keys", content=b'{"token_budget": 1e400}')
    assert error_of(reply)[3] == "invalid_json"
    assert "a number that is out of range" in reply.json()["error"]["message"]


async def test_a_large_body_is_refused(admin):
    assert error_of(await admin.post("/admin/keys", content=b" " * 70_000))[3] == "request_too_large"


async def test_while_the_store_is_unavailable_it_is_a_503_and_soon_worth_another_try(gateway, admin, document):
    put_away(gateway.access_control.store)
    for reply in (await admin.get("/admin/keys"), await admin.post("/admin/keys", json={}), await admin.get("/admin/usage")):
        assert error_of(reply) == (503, "server_error", None, "store_unavailable")
        assert reply.headers["retry-after"] == "5"
        hold(document, reply)


async def test_the_loop_goes_on_while_the_store_is_slow(gateway, admin, client):
    """A change waits for the lock that another process holds; requests do not."""
    with gateway.access_control.store.database.write():
        change = asyncio.create_task(admin.post("/admin/keys", json={}))
        for _ in range(20):
            assert (await embedded(client)).status_code == 200
        assert not change.done()
    assert (await change).status_code == 201


async def test_when_embedding_has_no_room_left_a_key_can_still_be_revoked(gateway, admin):
    gateway.admission.max_requests = 0
    async with holder(gateway) as client:
        assert (await embedded(client)).status_code == 503
        assert (await admin.post(f"/admin/keys/{client.public_id}/revoke")).status_code == 200


async def test_the_document_of_an_admin_api_is_sound(document):
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert {path for _, path in ROUTES} == {path.replace("{id}", "x") for path in document["paths"] if "admin" in path}


async def test_a_body_may_be_gzip_and_another_encoding_is_named_as_unsupported(admin):
    sent = gzip.compress(b'{"name": "packed"}')
    reply = await admin.post("/admin/keys", content=sent, headers={"content-encoding": "gzip"})
    assert (reply.status_code, reply.json()["name"]) == (201, "packed")
    reply = await admin.post("/admin/keys", content=b'{"name": "x"}', headers={"content-encoding": "zstd"})
    assert error_of(reply)[::3] == (415, "unsupported_encoding")
    assert reply.headers["accept-encoding"] == "gzip, identity"
    too_much = gzip.compress(b" " * 100_000)
    assert error_of(await admin.post("/admin/keys", content=too_much, headers={"content-encoding": "gzip"}))[0] == 413


async def test_half_a_surrogate_pair_in_a_body_is_a_replacement_character(admin):
    reply = await admin.post("/admin/keys", content=rb'{"name": "cut \ud83d", "metadata": {"team": "\ud83d\ude00\udc00"}}')
    assert (reply.status_code, reply.json()["name"]) == (201, "cut \ufffd")
    assert reply.json()["metadata"] == {"team": "\U0001f600\ufffd"}
