"""One request of each client that compat_tests/ tries, replayed without the client. `compat_tests/recorded/` holds them."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.paths import target_of
from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow, Secret, StoreSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.wire.request import decode

FILES = sorted((Path(__file__).parents[3] / "compat_tests/recorded").glob("*.json"))
RECORDED: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
KEY = "test-key-of-more-than-24-characters"
MODEL = "all-MiniLM-L6-v2"

recorded = pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED.keys())


def test_every_kind_of_client_was_recorded():
    assert {"openai_python", "langchain_openai", "azure", "openai_node", "ai_sdk", "curl"} <= set(RECORDED)


@recorded
def test_a_recorded_body_is_the_texts_its_client_was_given(recorded):
    target = target_of(recorded["path"].partition("?")[0])
    request = decode(recorded["body"].encode(), path_model=target.model)
    assert target.path == "/v1/embeddings"
    assert (request.texts, request.model, request.is_array) == (recorded["texts"], MODEL, True)


@pytest.fixture
async def gateway(tmp_path):
    (tmp_path / "key").write_text(KEY)
    config = Config(
        auth=AuthSettings(keys=Secret(file=str(tmp_path / "key"))),
        store=StoreSettings(data_dir=str(tmp_path / "data")),
        models=(ModelRow(name=MODEL, backend="fake"),),
    )
    gateway = Gateway(config, backends=[FakeBackend(**{MODEL: FakeEmbedder()})])
    await gateway.start()
    await gateway.load()
    yield gateway
    await gateway.close()


@recorded
async def test_a_recorded_request_is_answered(gateway, recorded):
    headers = {name: value.replace("KEY", KEY) for name, value in recorded["headers"].items()}
    transport = httpx.ASGITransport(app=gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.request(recorded["method"], recorded["path"], headers=headers, content=recorded["body"].encode())
    assert answer.status_code == 200, answer.text
    assert [row["index"] for row in answer.json()["data"]] == [0, 1]
    is_base64 = json.loads(recorded["body"]).get("encoding_format") == "base64"
    assert {type(row["embedding"]) for row in answer.json()["data"]} == {str if is_base64 else list}
