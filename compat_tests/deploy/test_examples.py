"""The examples, run as their readers run them."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.deploy.part import DEPLOY
from compat_tests.process import Gateway
from compat_tests.scorer import RERANKER, Scorer
from compat_tests.texts import many
from compat_tests.truth import Truth

EXAMPLES = DEPLOY / "examples"
PASSAGES = {
    "pump": "The water pump in the cellar is serviced in March by the company Brunner.",
    "piano": "The piano was tuned last in November and stands in the music room.",
    "bees": "Both hives came through the winter; the honey is harvested in July.",
}
QUESTION = "When do we harvest honey from the bees?"


def run(gateway: Gateway, key: str, script: str, *arguments: str | Path, **environ: str) -> str:
    ended = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        env={**os.environ, "OPENAI_BASE_URL": gateway.base_url, "OPENAI_API_KEY": key, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_faiss_finds_the_nearest_text(gateway: Gateway, key: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(PASSAGES.values()))
    lines = run(gateway, key, "faiss_search.py", texts, QUESTION).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(PASSAGES["bees"])
    cosines = [float(line.split()[0]) for line in lines]
    assert cosines == sorted(cosines, reverse=True)
    assert 0.4 < cosines[0] <= 1


def test_bits_are_searched_then_rescored_and_reranked(reranking: Gateway, scorer: Scorer, truth: Truth, tmp_path: Path) -> None:
    """Those shown are the best by CrossEncoder's scores of texts that are near by sentence-transformers' vectors."""
    texts = [*PASSAGES.values(), *many(60)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    gateway = {"GATEWAY": reranking.origin, "API_KEY": ENVIRONMENT_KEY, "RERANKER": RERANKER}
    lines = run(reranking, ENVIRONMENT_KEY, "binary_rag.py", tmp_path / "texts.txt", QUESTION, **gateway).splitlines()
    found = [line.split("  ", 1) for line in lines]
    assert len(found) == 3
    expected = scorer.scores(QUESTION, [text for _, text in found])
    assert [float(score) for score, _ in found] == pytest.approx(expected.tolist(), abs=2e-3)
    assert list(expected) == sorted(expected, reverse=True)
    cosines = truth.vectors(texts) @ truth.vector(QUESTION)
    nearest = [texts[number] for number in np.argsort(-cosines)]
    assert {text for _, text in found} <= set(nearest[:30])
    assert float(found[0][0]) >= max(scorer.scores(QUESTION, nearest[:15])) - 2e-3  # no near one was lost on the way


@contextmanager
def chat_model() -> Iterator[tuple[str, list[dict]]]:
    """An OpenAI-compatible chat server that answers "In July."; with what it was asked."""
    asked: list[dict] = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            message = {"role": "assistant", "content": "In July."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("\n\n".join(PASSAGES.values()))
    return path


def test_rag_shows_what_it_would_ask(gateway: Gateway, key: str, notes: Path) -> None:
    shown = run(gateway, key, "langchain_rag.py", notes, QUESTION)
    assert PASSAGES["bees"] in shown
    assert f"Question: {QUESTION}" in shown
    assert sum(passage in shown for passage in PASSAGES.values()) == 2


def test_rag_answers_from_what_it_found(gateway: Gateway, key: str, notes: Path) -> None:
    with chat_model() as (url, asked):
        said = run(gateway, key, "langchain_rag.py", notes, QUESTION, CHAT_BASE_URL=url, CHAT_MODEL="m")
    assert said == "In July.\n"
    assert PASSAGES["bees"] in asked[0]["messages"][0]["content"]


def test_the_elasticsearch_mapping_is_for_the_vectors_that_are_served(gateway: Gateway) -> None:
    blocks = re.findall(r"```json\n(PUT|POST) (\S+)\n(.*?)```", (EXAMPLES / "elasticsearch.md").read_text(), flags=re.DOTALL)
    bodies = [json.loads(body) for _, _, body in blocks]
    assert [path for _, path, _ in blocks] == ["/passages", "/passages/_search", "/passages/_search"]
    vector = bodies[0]["mappings"]["properties"]["vector"]
    assert (vector["type"], vector["similarity"]) == ("dense_vector", "dot_product")
    assert gateway.metric("gateway_model_info", having=f'dimensions="{vector["dims"]}"') >= 1
    for body in bodies[1:]:
        assert body["knn"]["field"] == "vector"
        assert body["knn"]["num_candidates"] >= body["knn"]["k"]
