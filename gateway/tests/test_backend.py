"""The public face for backends of other packages, and one that is really built, installed and served: `example_backend/`."""

import ast
import base64
import hashlib
import json
import os
import re
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

import gateway.backend

EXAMPLE = Path(__file__).parent / "example_backend"
PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
SALT = "a pinch"
CONFIG = """
auth = "none"
[[models]]
name = "hashes"
backend = "example"
dimensions = 24
salt = { env = "SALT" }
"""
GROUP = """
auth = "none"
[[models]]
name = "both"
backend = "group"
[[models.members]]
backend = "example"
[[models.members]]
backend = "example"
name = "salted"
salt = { env = "SALT" }
"""
START_SECONDS = 60


def test_all_that_the_face_has_is_public_and_on_the_page():
    imported = {name for name in vars(gateway.backend) if not name.startswith("__")}
    assert set(gateway.backend.__all__) == imported
    told = set(re.findall(r"`(\w+)", PAGE)) | set(re.findall(r"^    (\w+),$", PAGE, flags=re.MULTILINE))
    assert imported - told == set()


@pytest.mark.parametrize("name", ["example_backend.py", "pyproject.toml"])
def test_the_example_on_the_page_is_the_one_that_is_served(name):
    shown = PAGE.partition(f"\n`{name}`:\n\n```")[2].partition("\n")[2].partition("\n```\n")[0]
    assert f"{shown}\n" == (EXAMPLE / name).read_text(encoding="utf-8")


def test_the_example_imports_the_face_and_nothing_else_of_the_gateway():
    tree = ast.parse((EXAMPLE / "example_backend.py").read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [module for module in modules if module.startswith("gateway")] == ["gateway.backend"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of installed packages with the example in it."""
    folder = tmp_path_factory.mktemp("backend")
    source = shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, *offline, "--target", str(folder / "site"), str(source)], check=True, timeout=100)
    return folder / "site"


def started(site: Path, config: Path, *arguments: str, salt: str | None = SALT) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    environ |= {"PYTHONPATH": str(site), "GATEWAY_DATA_DIR": str(config.parent / "data")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments, "--config", str(config)],
        env=environ if salt is None else environ | {"SALT": salt},
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
    code, out, err = finished(started(tmp_path, config, "config", "check"))
    assert (code, out) == (2, "")
    known = "sentence-transformers, openai, ollama, tei, ray, group"
    assert err == f"gateway: models[hashes].backend: no backend is named 'example'; there are {known}\n"


def test_an_installed_backend_is_found_by_its_name(site, config):
    assert finished(started(site, config, "config", "check")) == (0, "ok: hashes\n", "")


@pytest.mark.parametrize(("text", "name"), [(CONFIG, "hashes"), (GROUP, "both/salted")])
def test_it_is_asked_what_is_missing_alone_and_in_a_group(site, config, text, name):
    config.write_text(text)
    told = f"gateway: models[{name}]: the environment variable SALT, named as a secret, is not set\n"
    assert finished(started(site, config, "config", "check", salt=None)) == (2, "", told)


def test_what_it_does_not_answer_is_answered_for_it(site, config):
    config.write_text(GROUP)
    nothing = "nothing to compile: the backend 'example' compiles nothing"
    built = f"both/1-example: {nothing}\nboth/salted: {nothing}\n"
    assert finished(started(site, config, "models", "build")) == (0, built, "")


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
    row = np.frombuffer(hashlib.shake_256(f"{SALT}{text}".encode()).digest(24), dtype=np.uint8) - 127.5
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
