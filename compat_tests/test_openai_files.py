"""The openai SDKs of Python and Node, unmodified: files, as their own documentation uses them."""

import json
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.process import Gateway

NODE = Path(__file__).with_name("node")
LINES = b"".join(b'{"custom_id": "request-%d", "method": "POST", "url": "/v1/embeddings"}\n' % number for number in range(100))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "batchinput.jsonl"
    path.write_bytes(LINES)
    return path


@pytest.fixture(autouse=True)
def no_files(client: OpenAI) -> Iterator[None]:
    yield
    for file in client.files.list(limit=2):
        client.files.delete(file.id)
    assert client.files.list().data == []


def test_openai_uploads_a_file_and_reads_it_back(client: OpenAI, path: Path, tmp_path: Path) -> None:
    with path.open("rb") as opened:
        file = client.files.create(file=opened, purpose="batch")
    assert (file.filename, file.bytes, file.purpose, file.object) == (path.name, len(LINES), "batch", "file")
    assert file.status == "processed"
    assert file.expires_at == file.created_at + 30 * 24 * 3600  # as OpenAI says of batches' files
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).text == LINES.decode()
    client.files.content(file.id).write_to_file(tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == LINES
    with client.files.with_streaming_response.content(file.id) as streamed:
        assert b"".join(streamed.iter_bytes(7)) == LINES
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    with pytest.raises(NotFoundError) as caught:
        client.files.content(file.id)
    assert caught.value.code == "file_not_found"
    assert caught.value.param == "id"
    assert caught.value.message.endswith(f"No such File object: {file.id}")


@pytest.mark.parametrize("sent", ["path", "bytes", "tuple", "bytesio"])
def test_openai_sends_a_file_in_many_forms(client: OpenAI, path: Path, sent: str) -> None:
    forms = {"path": path, "bytes": LINES, "tuple": ("named.jsonl", LINES, "application/jsonl"), "bytesio": BytesIO(LINES)}
    file = client.files.create(file=forms[sent], purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600})
    assert client.files.content(file.id).read() == LINES
    assert file.expires_at == file.created_at + 3600
    assert {"path": "batchinput.jsonl", "tuple": "named.jsonl"}.get(sent, "upload") == file.filename


async def test_openai_async_lists_all_pages(async_client: AsyncOpenAI) -> None:
    made = [(await async_client.files.create(file=(f"{number}.jsonl", b"{}"), purpose="batch")).id for number in range(5)]
    assert [file.id async for file in async_client.files.list(limit=2, order="asc")] == made
    assert [file.id async for file in async_client.files.list(limit=2)] == made[::-1]
    assert [file.id async for file in async_client.files.list(purpose="user_data")] == []


def test_openai_is_told_which_field_is_wrong(client: OpenAI) -> None:
    for wrong, param in (
        ({"purpose": "nonsense"}, "purpose"),
        ({"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after[seconds]"),
    ):
        with pytest.raises(BadRequestError) as caught:
            client.files.create(file=b"{}", **wrong)  # type: ignore[arg-type]
        assert (caught.value.param, caught.value.code) == (param, "invalid_value")


def test_openai_sees_no_file_of_another_key(client: OpenAI, gateway: Gateway) -> None:
    file = client.files.create(file=b"{}", purpose="batch")
    with OpenAI(base_url=gateway.base_url, api_key=ENVIRONMENT_KEY) as other:
        assert other.files.list().data == []
        with pytest.raises(NotFoundError):
            other.files.content(file.id)
        with pytest.raises(NotFoundError):
            other.files.delete(file.id)
    assert client.files.content(file.id).read() == b"{}"


def test_node_does_all_of_it(gateway: Gateway, key: str, path: Path) -> None:
    asked = json.dumps({"base_url": gateway.base_url, "key": key, "path": str(path)})
    ran = subprocess.run(["node", NODE / "files.mjs"], input=asked, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    said = json.loads(ran.stdout)
    assert said["content"] == LINES.decode()
    assert said["retrieved"] == said["streamed"]
    assert (said["streamed"]["filename"], said["streamed"]["bytes"]) == (path.name, len(LINES))
    assert said["named"]["expires_at"] == said["named"]["created_at"] + 3600
    assert (said["waited"], said["fetched"]) == ("processed", 3)
    assert said["listed"] == said["made"]
    assert [each["deleted"] for each in said["deleted"]] == [True] * 3
    assert said["gone"] == {"name": "NotFoundError", "status": 404, "code": "file_not_found", "param": "id"}
    assert said["refused"] == {"name": "BadRequestError", "status": 400, "code": "invalid_value", "param": "purpose"}
