"""A backend of a package that is really built, installed and served: `example_backend/`, in this folder."""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from gateway.embedding.registry import installed_backends
from gateway.engine.backend import SentenceTransformersBackend

CONFIG = """
auth = "none"
[[models]]
name = "hashes"
backend = "example"
dimensions = 24
salt = "a pinch"
"""
START_SECONDS = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of installed packages with the example in it."""
    folder = tmp_path_factory.mktemp("backend")
    source = shutil.copytree(Path(__file__).parent / "example_backend", folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, *offline, "--target", str(folder / "site"), str(source)], check=True, timeout=100)
    return folder / "site"


def started(site: Path, config: Path, *arguments: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments, "--config", str(config)],
        env={**environ, "PYTHONPATH": str(site)},
        cwd=config.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=START_SECONDS)
    return process.returncode, out, err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(CONFIG)
    return path


def test_without_it_the_builtin_backends_are_all_there_are(config, tmp_path):
    assert list(installed_backends([SentenceTransformersBackend()])) == ["sentence-transformers"]
    code, out, err = finished(started(tmp_path, config, "config", "check"))
    assert (code, out) == (2, "")
    known = "sentence-transformers, openai, ollama, tei, ray, group"
    assert err == f"gateway: models[hashes].backend: no backend is named 'example'; there are {known}\n"


def test_an_installed_backend_is_found_by_its_name(site, config):
    assert finished(started(site, config, "config", "check")) == (0, "ok: hashes\n", "")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("dimension = 8", "unknown setting 'models[hashes].dimension': did you mean 'dimensions'?"),
        ("dimensions = 0", "models[hashes].dimensions: expected int >= 1"),
        ('dimensions = "8"', "models[hashes].dimensions: expected int, got str"),
    ],
)
def test_its_settings_are_checked_by_name(site, config, written, told):
    config.write_text(CONFIG.replace("dimensions = 24", written))
    assert finished(started(site, config, "config", "check")) == (2, "", f"gateway: {told}\n")


def test_its_vectors_are_served_and_sigterm_ends_it_well(site, config):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = started(site, config, "serve", "--port", str(port))
    try:
        until_ready(process, f"http://127.0.0.1:{port}/readyz")
        reply = asked(port, {"model": "hashes", "input": ["hello", "wörld"], "encoding_format": "base64"})
        short = asked(port, {"model": "hashes", "input": "hello", "dimensions": 3})
        process.send_signal(signal.SIGTERM)
        code, _, err = finished(process)
    finally:
        process.kill()
    assert code == 0, err
    vectors = np.stack([np.frombuffer(base64.b64decode(entry["embedding"]), dtype="<f4") for entry in reply["data"]])
    np.testing.assert_allclose(vectors, [expected("hello"), expected("wörld")], atol=1e-6)
    assert reply["usage"] == {"prompt_tokens": 11, "total_tokens": 11}
    first = expected("hello")[:3]
    np.testing.assert_allclose(short["data"][0]["embedding"], first / np.linalg.norm(first), atol=1e-6)


def expected(text: str) -> np.ndarray:
    row = np.frombuffer(hashlib.shake_256(f"a pinch{text}".encode()).digest(24), dtype=np.uint8) - 127.5
    return row / np.linalg.norm(row)


def asked(port: int, body: object) -> dict:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        return json.load(reply)


def until_ready(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail(f"the server did not become ready: {process.stderr.read() if process.poll() is not None else 'too slow'}")
