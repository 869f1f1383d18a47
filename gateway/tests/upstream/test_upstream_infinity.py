"""infinity from PyPI, of `.venv-peers`, as an upstream: a server that nobody here wrote.

It needs an older world than ours, so it has an environment of its own: `make .venv-peers/.servers` makes it.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from gateway.errors import OperatorError
from gateway.testing.folder import folder_of
from gateway.tests.upstream.conftest import built, embedded, value_of

PROGRAM = Path(__file__).parents[3] / ".venv-peers" / "bin" / "infinity_emb"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
KEY = "key-of-infinity"
START_SECONDS = 110
TEXTS = [f"Sentence number {number} tells of {'very ' * (number % 7)}different things." for number in range(40)]

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def infinity(tmp_path_factory):
    """Its address, once it is ready."""
    if not PROGRAM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{PROGRAM} is missing: make .venv-peers/.servers")
        pytest.skip("infinity is not installed: make .venv-peers/.servers")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("infinity") / "log"
    where = ["--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1", "--api-key", KEY]
    model = ["--model-id", str(folder_of(MODEL, download=False)), "--served-model-name", "minilm"]
    quick = ["--no-model-warmup", "--no-bettertransformer", "--device", "cpu"]
    environ = {**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen([PROGRAM, "v2", *model, *where, *quick], env=environ, stdout=output, stderr=output)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process, url, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own process
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"infinity did not become ready: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def expected():
    """The vectors of sentence-transformers itself, float32."""
    return SentenceTransformer(str(folder_of(MODEL, download=False)), device="cpu").encode(TEXTS, normalize_embeddings=True)


@pytest.fixture
async def remote(infinity, monkeypatch):
    monkeypatch.setenv("INFINITY_KEY", KEY)
    remote = built("openai", url=infinity, model="minilm", key={"env": "INFINITY_KEY"}, max_inputs=16)
    await remote.start()
    yield remote
    await remote.close()


async def test_its_vectors_are_those_of_the_model_whatever_it_was_cut_into(remote, expected):
    vectors = await embedded(remote, *TEXTS)
    assert remote.describe().dimensions == 384
    cosines = (vectors.rows * expected).sum(axis=1)
    assert cosines.min() > 0.999  # float16 on its side
    np.testing.assert_allclose(np.linalg.norm(vectors.rows, axis=1), 1, atol=1e-5)


async def test_it_gives_bytes_and_counts_characters_which_is_not_believed(remote):
    assert remote.client.as_base64
    vectors = await embedded(remote, *TEXTS)
    assert sum(vectors.token_counts) < sum(map(len, TEXTS)) / 2
    assert value_of(remote, "gateway_estimated_tokens_total", model="m") > 0


async def test_more_than_it_takes_is_cut_by_what_it_says(infinity, monkeypatch):
    monkeypatch.setenv("INFINITY_KEY", KEY)
    remote = built("openai", url=infinity, model="minilm", key={"env": "INFINITY_KEY"}, max_inputs=100_000)
    await remote.start()
    vectors = await embedded(remote, *["a"] * 2100)
    assert vectors.rows.shape == (2100, 384)
    assert remote.client.limits.max_inputs == 2048
    await remote.close()


async def test_a_wrong_key_is_an_operators_to_mend(infinity, monkeypatch):
    monkeypatch.setenv("INFINITY_KEY", "wrong")
    remote = built("openai", url=infinity, model="minilm", key={"env": "INFINITY_KEY"})
    with pytest.raises(OperatorError, match="refused our key"):
        await remote.start()
    await remote.close()
