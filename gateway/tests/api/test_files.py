"""/v1/files: OpenAI's words, each key's own files, and nothing left of what failed."""

import asyncio
import json
import tracemalloc

import pytest

from gateway.config import AuthSettings, Config, FileSettings, ServerSettings, StoreSettings
from gateway.tests.api.conftest import KEY, Connection, client_of
from gateway.tests.api.keys import error_of, holder
from gateway.tests.api.openapi.schemas import hold
from gateway.tests.files.conftest import contents
from gateway.tests.files.test_store import rows
from gateway.wire.files import PURPOSES

KB, MB = 1024, 1024 * 1024
LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
BOUNDARY = "b0undary"


def form(*parts: tuple[str, bytes]) -> bytes:
    """A body: each part's Content-Disposition behind `form-data; `, and its content."""
    begun = f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
    return (
        b"".join(f"{begun}{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts) + f"--{BOUNDARY}--\r\n".encode()
    )


PURPOSE, FILE = ('name="purpose"', b"batch"), ('name="file"; filename="a.jsonl"', LINES)
TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def gateway(make):
    gateway = make(
        server=ServerSettings(max_body_bytes=10 * KB, max_buffered_bytes=20 * KB, body_timeout_seconds=0.2),
        files=FileSettings(max_file_bytes=2 * MB, max_bytes_per_key=5 * MB, upload_idle_seconds=0.2, min_free_bytes=0),
    )
    await gateway.start()
    await gateway.load()
    yield gateway
    await gateway.close()


async def upload(client, content=LINES, *, name="a.jsonl", **fields):
    return await client.post("/v1/files", files={"file": (name, content)}, data={"purpose": "batch", **fields})


def nothing_is_left(gateway):
    return contents(gateway.generation.files) == [] and rows(gateway.generation.files) == []


async def test_a_file_goes_up_and_comes_back_as_openai_says(gateway, client):
    document = (await client.get("/openapi.json")).json()
    made = await upload(client, **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
    hold(document, made)
    file = made.json()
    assert file == {
        "object": "file", "id": file["id"], "purpose": "batch", "filename": "a.jsonl", "bytes": len(LINES), "status": "processed",
        "created_at": file["created_at"], "expires_at": file["created_at"] + 3600, "status_details": None,
    }  # fmt: skip
    assert list(file)[:2] == ["object", "id"]
    assert file["id"].startswith("file-")
    shown = await client.get(f"/v1/files/{file['id']}")
    hold(document, shown)
    assert shown.json() == file
    content = await client.get(f"/v1/files/{file['id']}/content")
    hold(document, content)
    assert content.content == LINES
    assert content.headers["content-type"] == "application/octet-stream"
    assert content.headers["content-length"] == str(len(LINES))
    assert content.headers["content-disposition"] == "attachment; filename=\"a.jsonl\"; filename*=UTF-8''a.jsonl"
    head = await client.head(f"/v1/files/{file['id']}/content")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(LINES)), b"")
    gone = await client.delete(f"/v1/files/{file['id']}")
    hold(document, gone)
    assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/content")]:
        lost = await client.request(method, f"/v1/files/{file['id']}{path}")
        hold(document, lost)
        assert error_of(lost) == (404, "invalid_request_error", "id", "file_not_found")


async def test_lists_have_pages(client):
    document = (await client.get("/openapi.json")).json()
    empty = await client.get("/v1/files")
    hold(document, empty)
    assert empty.json() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    made = [(await upload(client, purpose=purpose)).json() for purpose in ("batch", "user_data", "batch")]
    page = await client.get("/v1/files", params={"limit": 2, "order": "asc"})
    hold(document, page)
    assert page.json() == {
        "object": "list", "data": made[:2], "first_id": made[0]["id"], "last_id": made[1]["id"], "has_more": True
    }  # fmt: skip
    rest = (await client.get("/v1/files", params={"limit": 2, "order": "asc", "after": made[1]["id"]})).json()
    assert (rest["data"], rest["has_more"]) == (made[2:], False)
    assert (await client.get("/v1/files")).json()["data"] == made[::-1]
    assert (await client.get("/v1/files?after=&purpose=")).json()["data"] == made[::-1]
    assert (await client.get("/v1/files?purpose=user_data")).json()["data"] == [made[1]]


@pytest.mark.parametrize(
    ("query", "param", "status"),
    [("limit=0", "limit", 400), ("limit=10001", "limit", 400), ("limit=x", "limit", 400), ("order=up", "order", 400),
     ("after=file-nothing", "after", 404)],
)  # fmt: skip
async def test_a_wrong_list_names_the_field(client, query, param, status):
    reply = await client.get(f"/v1/files?{query}")
    assert error_of(reply)[::2] == (status, param)


async def test_a_key_sees_its_own_files_alone(gateway, client, stranger):
    file = (await upload(client)).json()
    async with holder(gateway) as other:
        assert (await other.get("/v1/files")).json()["data"] == []
        for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/content")]:
            reply = await other.request(method, f"/v1/files/{file['id']}{path}")
            assert error_of(reply)[0] == 404
            assert (await stranger.request(method, f"/v1/files/{file['id']}{path}")).status_code == 401
        assert error_of(await other.get(f"/v1/files?after={file['id']}"))[0] == 404
    assert (await stranger.get("/v1/files")).status_code == 401
    assert (await upload(stranger)).status_code == 401
    assert (await client.get(f"/v1/files/{file['id']}/content")).content == LINES


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([FILE], "purpose", "missing_required_parameter"),
        ([PURPOSE], "file", "missing_required_parameter"),
        ([PURPOSE, ('name="file"', LINES)], "file", "invalid_type"),
        ([PURPOSE, ('name="file"; filename="a"', b"")], "file", "invalid_value"),
        ([PURPOSE, FILE, FILE], "file", "invalid_value"),
        ([('name="purpose"', b"batch_output"), FILE], "purpose", "invalid_value"),
        ([('name="purpose"', b""), FILE], "purpose", "missing_required_parameter"),
        ([('name="purpose"', b"x" * 5000), FILE], "purpose", "invalid_value"),
        ([PURPOSE, FILE, ('name="expires_after[anchor]"', b"created_at")], "expires_after[seconds]", "missing_required_parameter"),
        ([PURPOSE, FILE, ('name="expires_after[seconds]"', b"3600")], "expires_after[anchor]", "missing_required_parameter"),
        (
            [PURPOSE, FILE, ('name="expires_after[anchor]"', b"now"), ('name="expires_after[seconds]"', b"3600")],
            "expires_after[anchor]", "invalid_value",
        ),
        *(
            (
                [PURPOSE, FILE, ('name="expires_after[anchor]"', b"created_at"), ('name="expires_after[seconds]"', seconds)],
                "expires_after[seconds]", code,
            )
            for seconds, code in [
                (b"3599", "invalid_value"), (b"2592001", "invalid_value"), (b"1h", "invalid_type"), (b"-3600", "invalid_type"),
                ("٣٦٠٠".encode(), "invalid_type"),
            ]
        ),
        ([PURPOSE, FILE, ('name="expires_after"', b'{"anchor": "created_at"}')], "expires_after", "invalid_type"),
        ([PURPOSE, FILE, *[('name="x"', b"")] * 40], None, "invalid_value"),
    ],
)  # fmt: skip
async def test_a_wrong_form_names_the_field_and_leaves_nothing(gateway, client, parts, param, code):
    reply = await client.post("/v1/files", content=form(*parts), headers=TYPE)
    assert error_of(reply) == (400, "invalid_request_error", param, code)
    assert nothing_is_left(gateway)


GOOD = form(PURPOSE, FILE)


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b'{"purpose": "batch"}', "application/json", "invalid_type"),
        (GOOD, "", "invalid_type"),
        (GOOD, "multipart/form-data", "invalid_value"),
        (GOOD, "multipart/form-data; boundary=other", "invalid_value"),
        (GOOD.replace(BOUNDARY.encode(), b"b" * 300), "multipart/form-data; boundary=" + "b" * 300, "invalid_value"),
        (GOOD, "multipart/mixed; boundary=" + BOUNDARY, "invalid_type"),
        (b"", TYPE["content-type"], "invalid_value"),
        (GOOD[:-20], TYPE["content-type"], "invalid_value"),
        (GOOD.replace(b"form-data; ", b"attachment; "), TYPE["content-type"], "invalid_value"),
        (form((f'name="file"; filename="{"x" * 5000}"', LINES), PURPOSE), TYPE["content-type"], "invalid_value"),
(GOOD[:40], TYPE["content-type"], "invalid_value"),
    ],
)  # fmt: skip
async def test_what_is_no_form_is_a_400_and_leaves_nothing(gateway, client, body, content_type, code):
    reply = await client.post("/v1/files", content=body, headers={"content-type": content_type})
    assert error_of(reply)[::3] == (400, code)
    assert "form-data" in reply.json()["error"]["message"]
    assert nothing_is_left(gateway)


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_every_purpose_is_taken_and_only_a_batch_expires_by_itself(client, purpose):
    file = (await upload(client, purpose=purpose)).json()
    assert file["purpose"] == purpose
    assert file["expires_at"] == (file["created_at"] + 30 * 86400 if purpose == "batch" else None)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a b.jsonl", "a b.jsonl"), ("../../etc/passwd", "passwd"), ("C:\\texts\\a.jsonl", "a.jsonl"),
        ("Größe 文.jsonl", "Größe 文.jsonl"),
        ("x" * 300, "x" * 255), ("", "upload"), ("..", ".."), ("a\u202egnp.exe", "agnp.exe"), ('quo"te', 'quo"te'),
    ],
)  # fmt: skip
async def test_names_of_files_are_kept_without_what_misleads(client, sent, kept):
    head = sent.replace("\\", "\\\\").replace('"', "%22")
    file = (await client.post("/v1/files", content=form((f'name="file"; filename="{head}"', b"x"), PURPOSE), headers=TYPE)).json()
    assert file["filename"] == kept
    content = await client.get(f"/v1/files/{file['id']}/content")
    assert content.content == b"x"
    assert content.headers["content-disposition"].isascii()


async def test_a_file_may_be_as_large_as_it_may_be_and_larger_than_other_bodies(gateway, client):
    content = b"x" * 2 * MB
    file = (await upload(client, content)).json()
    assert (await client.get(f"/v1/files/{file['id']}/content")).content == content
    await client.delete(f"/v1/files/{file['id']}")
    assert error_of(await upload(client, content + b"x")) == (413, "invalid_request_error", "file", "file_too_large")
    await gateway.generation.files.sweeper.sweep()
    assert contents(gateway.generation.files) == []


async def test_a_body_said_to_be_too_large_is_refused_before_it_is_read(client, gateway):
    connection = files_connection(headers=[(b"content-length", b"9999999")])
    await gateway(connection.scope, connection.receive, connection.send)
    assert connection.status == 413


async def test_the_quota_of_a_key_holds(gateway, client):
    for _ in range(2):
        assert (await upload(client, b"x" * 2 * MB)).status_code == 200
    assert error_of(await upload(client, b"x" * 2 * MB)) == (400, "invalid_request_error", "file", "storage_quota_exceeded")
    async with holder(gateway) as other:
        assert (await upload(other, b"x" * 2 * MB)).status_code == 200


def files_connection(*messages, headers=()):
    connection = Connection(*messages, headers=[(name.encode(), value.encode()) for name, value in TYPE.items()] + [*headers])
    connection.scope |= {"path": "/v1/files", "raw_path": b"/v1/files"}
    return connection


def request_message(body, *, more):
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
async def test_how_a_body_is_cut_changes_nothing(gateway, client, size):
    content = b"--b0undar\r\n--b0undar\r\n\r\n--" + b"\r" * 50
    body = form(('name="file"; filename="a"', content), PURPOSE)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    connection = files_connection(*(request_message(piece, more=True) for piece in pieces), request_message(b"", more=False))
    await gateway(connection.scope, connection.receive, connection.send)
    file = json.loads(connection.body)
    assert (await client.get(f"/v1/files/{file['id']}/content")).content == content


async def test_a_client_who_leaves_leaves_nothing(gateway):
    connection = files_connection(request_message(GOOD[:-20], more=True), {"type": "http.disconnect"})
    await gateway(connection.scope, connection.receive, connection.send)
    assert connection.status == 499
    assert nothing_is_left(gateway)


async def test_a_client_who_stops_sending_is_refused_and_leaves_nothing(gateway):
    connection = files_connection(request_message(GOOD[:-20], more=True), asyncio.Event().wait)
    await gateway(connection.scope, connection.receive, connection.send)
    assert connection.status == 408
    assert nothing_is_left(gateway)


async def test_a_slow_upload_has_a_time_of_its_own(make, client):
    async def slow():
        for start in range(0, len(GOOD), 40):
            await asyncio.sleep(0.05)  # in all longer than body_timeout_seconds
            yield GOOD[start : start + 40]

    assert (await client.post("/v1/files", content=slow(), headers=TYPE)).status_code == 200


async def test_neither_an_upload_nor_a_content_is_whole_in_memory(make):
    gateway = make(files=FileSettings(min_free_bytes=0))
    await gateway.start()
    head, tail = GOOD.split(LINES)
    piece, num_pieces = b"x" * 64 * KB, 600
    messages = [
        request_message(head, more=True),
        *[request_message(piece, more=True)] * num_pieces,
        request_message(tail, more=False),
    ]
    connection = files_connection(*messages)
    tracemalloc.start()
    await gateway(connection.scope, connection.receive, connection.send)
    assert connection.status == 200
    file, num_bytes, sent = json.loads(connection.body), 0, asyncio.Event()
    assert file["bytes"] == num_pieces * len(piece)

    async def send(message):
        nonlocal num_bytes
        num_bytes += len(message.get("body", b""))
        if message.get("more_body") is False:
            sent.set()

    async def leave():
        await sent.wait()
        return {"type": "http.disconnect"}

    reading = files_connection(leave)
    reading.scope |= {"method": "GET", "path": f"/v1/files/{file['id']}/content"}
    await gateway(reading.scope, reading.receive, send)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_bytes == file["bytes"]
    assert peak < num_bytes / 4
    await gateway.close()


async def test_uploads_at_once_are_bounded(make):
    gateway = make(files=FileSettings(max_uploads=1, min_free_bytes=0))
    await gateway.start()
    held, released = asyncio.Event(), asyncio.Event()

    async def receive():
        held.set()
        await released.wait()
        return request_message(GOOD, more=False)

    first = files_connection(receive)
    answering = asyncio.create_task(gateway(first.scope, first.receive, first.send))
    await held.wait()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        assert error_of(await upload(client)) == (503, "server_error", None, "server_overloaded")
    released.set()
    await answering
    assert first.status == 200
    await gateway.close()


async def test_a_full_disk_is_a_503_and_leaves_nothing(make):
    gateway = make(files=FileSettings(min_free_bytes=2**60))
    await gateway.start()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await upload(client)
        assert error_of(reply) == (503, "server_error", None, "storage_unavailable")
        assert reply.headers["retry-after"] == "30"
    assert contents(gateway.generation.files) == []
    await gateway.close()


async def test_a_compressed_upload_is_refused(client):
    reply = await client.post("/v1/files", content=GOOD, headers={**TYPE, "content-encoding": "gzip"})
    assert error_of(reply) == (415, "invalid_request_error", None, "unsupported_encoding")
    assert reply.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("mode", "enabled", "status"), [("keys", None, 200), ("keys", False, 404), ("none", None, 404), ("none", True, 200)]
)
async def test_without_keys_files_are_kept_only_where_the_operator_says_so(make, mode, enabled, status):
    auth = {"auth": AuthSettings(mode="none")} if mode == "none" else {}
    gateway = make(files=FileSettings(enabled=enabled, min_free_bytes=0), **auth)
    await gateway.start()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        assert (await upload(client)).status_code == status
        assert ("/v1/files" in (await client.get("/openapi.json")).json()["paths"]) == (status == 200)
    await gateway.close()


@pytest.mark.parametrize(
    ("place", "enabled", "has_files"),
    [({}, None, False), ({}, True, True), ({"folder": "/shared"}, None, True), ({"s3_bucket": "b"}, None, True)],
)
def test_gateways_of_one_database_need_one_place_for_files(place, enabled, has_files):
    store = StoreSettings(database_url="postgresql://host/database")
    assert Config(store=store, files=FileSettings(enabled=enabled, **place)).has_files == has_files


@pytest.mark.parametrize("path", ["/files", "/v1/files/", "//v1//files", "/v1/v1/files", "/openai/files", "/openai/v1/files"])
async def test_the_paths_that_clients_send_lead_there(client, path):
    assert (await client.get(path)).json()["object"] == "list"


async def test_a_content_that_is_lost_is_a_503_and_not_half_a_reply(gateway, client):
    file = (await upload(client)).json()
    [path] = contents(gateway.generation.files)
    path.unlink()
    reply = await client.get(f"/v1/files/{file['id']}/content")
    assert error_of(reply)[::3] == (503, "storage_unavailable")


@pytest.mark.parametrize("plain", ["", ' filename="%E6%96%87.jsonl";'])
async def test_a_name_in_the_form_of_old_clients_is_read(client, plain):
    head = f"name=\"file\";{plain} filename*=utf-8''%E6%96%87.jsonl"
    file = (await client.post("/v1/files", content=form((head, b"x"), PURPOSE), headers=TYPE)).json()
    assert file["filename"] == "文.jsonl"
