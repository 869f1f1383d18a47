"""Each row of docs/upstreams.md for a reranker, as it stands on the page, against a stand-in of the server that it is for."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from gateway.config import load
from gateway.testing.rerank_server import NIM_HOSTED, SERVERS, RerankWeights
from gateway.testing.upstream_server import Standin
from gateway.tests.upstream.conftest import built, inputs

PAGE = (Path(__file__).parents[4] / "docs" / "upstreams.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Rerankers\n")[1].split("\n## ")[0]
ROWS = dict(re.findall(r"^### Rerank at (.+?)\n.*?^```toml\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL))
KEY = "a-key-of-a-service"
QUERY = "what lives in the deep sea"


@pytest.fixture(params=[each for each in SERVERS.values() if each is not NIM_HOSTED], ids=lambda each: each.name)
def server(request):
    return request.param


def row_of(name, tmp_path, origin):
    """The row of the page, read as the gateway reads its file: only where its address leads is another."""
    path = tmp_path / "gateway.toml"
    [address] = re.findall(r'^url = "(.+)"$', ROWS[name], flags=re.MULTILINE)
    path.write_text(ROWS[name].replace(address, origin + urlsplit(address).path), encoding="utf-8")
    [row] = load(path, environ={}).models
    return row


def test_the_page_has_a_row_and_a_line_of_the_table_for_each():
    lines = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \|.*\| (.+) \|$", SECTION, flags=re.MULTILINE)
    assert [name for name, _, _ in lines] == list(ROWS)
    assert set(ROWS) == {each.name for each in SERVERS.values()} - {NIM_HOSTED.name}
    for name, anchor, source in lines:
        assert anchor == f"rerank-at-{re.sub('[^a-z0-9 ]', '', name.lower()).replace(' ', '-')}"
        assert "https://" in source or "recorded" in source or ".md" in source, name


async def test_its_row_serves_and_splits_by_its_limit(server, tmp_path, monkeypatch):
    async with Standin(server.answering()).serving() as standin:
        row = row_of(server.name, tmp_path, standin.url)
        assert row.settings["task"] == "rerank"
        if "key" in row.settings:
            monkeypatch.setenv(row.settings["key"]["env"], KEY)
            standin.answer = server.answering(key=KEY)
        remote = built(row.backend, name=row.name, retry=False, **row.settings)
        try:
            await remote.start()
            standin.requests.clear()
            documents = [f"document {index} of the deep sea" for index in range(row.settings.get("max_inputs", 32) + 1)]
            found = await remote.embed(await remote.prepare(inputs(*documents, query=QUERY)))
            sent = sorted(len(request.body[server.documents]) for request in standin.requests)
            assert remote.health().learned == {}
        finally:
            await remote.close()
    assert sent == ([1, len(documents) - 1] if server.name == "TEI" or "max_inputs" in row.settings else [len(documents)])
    np.testing.assert_allclose(found.rows[:, 0], RerankWeights().logits(QUERY, documents), atol=2e-3)
    assert urlsplit(standin.requests[0].path).path.endswith(server.path)
