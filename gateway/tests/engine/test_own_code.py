"""Code that comes with a model: run where its row asks for it, by the commit or digest that it names, and with nothing to steal."""

import json
import sys
import threading
from importlib import util

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from gateway.engine import runtime
from gateway.engine.artifact import ArtifactStore
from gateway.engine.compiler import CompileProcess, Interrupted, compile_model
from gateway.engine.confinement import landlock_version
from gateway.engine.kind import kind_of
from gateway.engine.own_code import code_digest
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import local_folder
from gateway.errors import ConfigurationError, OperatorError
from gateway.testing.own_code import save_own_code
from gateway.tests.engine.conftest import embedded, local_of

SECRET = "sk-secret-of-the-gateway"
# Code that raises if it finds the key: in its environment, in a file, or in the process that started it.
THIEF = """
import os
from pathlib import Path
FOUND = repr(dict(os.environ))
for place in ({key_file!r}, f"/proc/{{os.getppid()}}/environ", f"/proc/{{os.getppid()}}/cmdline", "/proc/self/environ"):
    try:
        FOUND += Path(place).read_text()
    except OSError:
        pass
if {secret!r} in FOUND or "HF_TOKEN" in FOUND:
    raise RuntimeError("found a key")
print('{{"error": "printed by the model"}}')
print(FOUND)
"""
needs_landlock = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return save_own_code(tmp_path_factory.mktemp("own"))


def trusted(folder, **settings):
    return {"trust_remote_code": True, "revision": code_digest(folder), **settings}


async def test_its_vectors_are_served_compiled_and_it_finds_no_key(tmp_path, monkeypatch):
    key_file = tmp_path / "key"
    key_file.write_text(SECRET)
    code = THIEF.format(key_file=str(key_file) if landlock_version() else "/nowhere", secret=SECRET)
    folder = save_own_code(tmp_path / "own", code)
    monkeypatch.setenv("GATEWAY_API_KEYS", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    specification = util.spec_from_file_location("modeling_own", folder / "modeling_own.py")
    with pytest.raises(RuntimeError, match="found a key"):  # here it would
        specification.loader.exec_module(util.module_from_spec(specification))
    local = local_of(folder, data_dir=tmp_path / "data", precision="float32", **trusted(folder))
    await local.start()
    try:
        rows, _ = await embedded(local, "the red server", "a long text")
    finally:
        await local.close()
    honest = save_own_code(tmp_path / "honest")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    reference = SentenceTransformer(str(honest), device="cpu", trust_remote_code=True)
    expected = reference.encode(["the red server", "a long text"], normalize_embeddings=True)
    assert np.allclose(rows, expected, atol=1e-4)
    assert local.describe().runtime == "openvino"
    assert {path.name[0] for path in (tmp_path / "data" / "models").iterdir()} != {"."}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, 'trust_remote_code = true in its row, with revision = "{digest}"'),
        ({"trust_remote_code": True, "revision": "0" * 40}, 'its digest is "{digest}"'),
        ({"revision": "main"}, "revision is for models of the hub"),
    ],
)
def test_it_is_refused_without_trust_or_with_other_code_than_was_read(settings, words, own):
    with pytest.raises(OperatorError) as caught:
        local_folder(LocalSettings(source=str(own), **settings))
    assert words.format(digest=code_digest(own)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "a" * 39, "A" * 40, "a" * 41, "refs/pr/1"])
def test_only_a_whole_commit_pins(revision):
    with pytest.raises(ValueError, match="trust_remote_code needs revision"):
        LocalSettings(source="some/model", trust_remote_code=True, revision=revision)


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({"runtime": "torch"}, "remove runtime = 'torch'"),
        ({"device": "cuda:0"}, "set device = 'cpu'"),
        ({"precision": "float16"}, "set precision"),
    ],
)
def test_torch_would_run_it_in_the_gateway_and_is_refused(settings, way):
    with pytest.raises(ConfigurationError, match="never in the gateway") as caught:
        runtime.compiles(LocalSettings(source="some/model", trust_remote_code=True, revision="a" * 40, **settings))
    assert way in str(caught.value)


def test_a_changed_file_of_code_is_another_model(own, tmp_path):
    folder = tmp_path / "copy"
    (folder / "more").mkdir(parents=True)
    (folder / "own.py").write_text("a = 1")
    before = code_digest(folder)
    (folder / "more" / "deep.py").write_text("b = 2")
    assert code_digest(folder) != before
    (folder / "more" / "deep.py").unlink()
    (folder / "README.md").write_text("new")
    assert code_digest(folder) == before


FOREIGN = {
    "another repository's": lambda folder: edit(folder / "config.json", auto_map={"AutoModel": "jinaai/code--modeling.Own"}),
    "another repository's tokenizer": lambda folder: edit(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["jinaai/code--own.Own", None]}
    ),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_code_that_no_revision_pins_is_refused_even_if_trusted(make, tmp_path):
    folder = save_own_code(tmp_path / "own")
    make(folder)
    with pytest.raises(OperatorError, match="code of another repository"):
        kind_of(folder, trusts_code=True)


def test_a_routers_own_modules_are_seen(own, tmp_path):
    folder = save_own_code(tmp_path / "own")
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("auto_map", "no_map"))
    (folder / "router_config.json").write_text(json.dumps({"types": {"query_0": "own.Module"}}))
    edit_modules(folder, "sentence_transformers.models.Router")
    with pytest.raises(OperatorError, match=r"router_config\.json names own\.Module"):
        kind_of(folder)


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_modules(folder, *types):
    named = [{"idx": number, "name": str(number), "path": "", "type": each} for number, each in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(named))


def run_hostile(tmp_path, code, *, seconds=20.0, child=None, progress=lambda _: None):
    """What a compiling child does that runs `code` in the place of a model's own."""
    compile_model(
        tmp_path,
        source="x",
        precision="float32",
        artifacts=ArtifactStore(tmp_path / "models"),
        progress=progress,
        child=child or CompileProcess(),
        revision="a" * 40,
        trusts_code=True,
        command=[sys.executable, "-c", code],
        timeout_seconds=seconds,
    )


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


HOSTILE = {
    "ends as if all were well": ("raise SystemExit(0)", "ended without a compiled model"),
    "raises": ("raise SystemExit(3)", "exit code 3"),
    "kills itself": ("import os; os.abort()", "exit code -6"),
    "prints an error of a thousand lines": (
        r"""import json; print(json.dumps({"error": "a\n\x1b[31m" * 5000, "category": "own"})); raise SystemExit(1)""",
        "a  [31m" * 100,
    ),
    "floods its output": ("import sys; sys.stdout.write('x' * 10_000_000); raise SystemExit(4)", "exit code 4"),
    "leaves a child behind that holds its output": (
        "import os, threading\nif os.fork() == 0: threading.Event().wait()\nraise SystemExit(5)", "exit code 5",
    ),
    "never ends": ("import signal, threading; signal.signal(15, signal.SIG_IGN); threading.Event().wait()", "given up"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "words"), HOSTILE.values(), ids=HOSTILE)
def test_whatever_it_does_is_one_bounded_line(code, words, weights):
    with pytest.raises(OperatorError) as caught:
        run_hostile(weights, code, seconds=2.0 if words == "given up" else 20.0)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 1000
    assert [*(weights / "models").iterdir()] == []


def test_steps_that_it_invents_or_repeats_are_not_logged(weights):
    steps = []
    code = r"""print('{"step": "loading"}\n' * 1000 + '{"step": "own"}\n' * 1000); raise SystemExit(1)"""
    with pytest.raises(OperatorError):
        run_hostile(weights, code, progress=steps.append)
    assert steps == ["loading"]


def test_a_gateway_that_stops_ends_it_though_it_takes_no_notice(weights):
    child = CompileProcess()
    code = """import signal, threading; signal.signal(15, signal.SIG_IGN)\nprint('{"step": "loading"}', flush=True)
threading.Event().wait()"""
    with pytest.raises(Interrupted):
        run_hostile(weights, code, child=child, progress=lambda _: threading.Thread(target=child.stop).start())
    assert child.process.returncode == -9


@needs_landlock
def test_it_writes_signals_and_connects_nowhere(weights, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    code = f"""
import os, socket, sys
def refused(action):
    try:
        action()
    except PermissionError:
        return True
    return False
open("here", "w").write("its own folder")
attempts = [
    refused(lambda: open({str(outside / "file")!r}, "w")),
    refused(lambda: open({str(weights / "config.json")!r}, "w")),
    refused(lambda: os.listdir({str(outside)!r})),
    refused(lambda: os.kill(os.getppid(), 0)) or {landlock_version()} < 6,
    refused(lambda: socket.create_connection(("127.0.0.1", 9), 1)) or {landlock_version()} < 4,
    refused(lambda: open(f"/proc/{{os.getppid()}}/mem", "rb")),
]
open({str(weights / "config.json")!r}).read()
print('{{"error": "' + str(attempts) + '"}}')
raise SystemExit(1)
"""
    with pytest.raises(OperatorError, match=r"^\[True, True, True, True, True, True\]$"):
        run_hostile(weights, code)
    assert [*outside.iterdir()] == []
