"""Compiled models: made once, read without torch, refused when damaged, never half written, never sent about."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from gateway.engine import artifact
from gateway.engine.artifact import ArtifactStore
from gateway.engine.compiler import CompileProcess, Interrupted, compile_model
from gateway.engine.fidelity import MIN_COSINE, cosines
from gateway.engine.identity import identity_of
from gateway.errors import OperatorError
from gateway.tests.engine.conftest import embedded, local_of
from gateway.tests.engine.test_weights import run


def build(model, artifacts, *, precision="float32"):
    steps = []
    compile_model(model, source=str(model), precision=precision, artifacts=artifacts, progress=steps.append, child=CompileProcess())
    return artifacts.path(identity_of(model), precision), steps


@pytest.fixture(scope="module")
def made(small_model, tmp_path_factory):
    """An artifact of the small model in float32, on a shelf of its own."""
    artifacts = ArtifactStore(tmp_path_factory.mktemp("shelf"))
    place, steps = build(small_model, artifacts)
    assert steps == ["loading", "converting", "measuring", "writing"]
    return artifacts, place


@pytest.fixture
def copy(made, tmp_path):
    """That artifact on a shelf that a test may spoil."""
    artifacts = ArtifactStore(tmp_path / "shelf")
    return artifacts, shutil.copytree(made[1], artifacts.folder / made[1].name)


def test_the_manifest_says_what_it_was_made_from(made, small_model):
    manifest = artifact.read(made[1])
    assert manifest.identity == identity_of(small_model)
    assert manifest.libraries == artifact.installed_libraries()
    assert not manifest.network.leaves_prompt_out
    assert (manifest.precision, manifest.network.dimensions, manifest.network.max_tokens) == ("float32", 32, 32)
    assert manifest.network.prompts == {"query": "query: ", "document": "passage: "}
    assert manifest.fidelity > 0.999999


def test_only_whole_artifacts_are_left_on_the_shelf(made):
    assert [path.name for path in made[0].folder.iterdir()] == [made[1].name]


@pytest.mark.parametrize("name", [artifact.NETWORK, "model.bin", artifact.TOKENIZER, artifact.MANIFEST])
def test_a_damaged_or_missing_file_is_noticed(copy, small_model, name):
    artifacts, place = copy
    content = (place / name).read_bytes()
    (place / name).write_bytes(content[: len(content) // 2] + b"\x00" + content[len(content) // 2 + 1 :])
    assert artifacts.find(identity_of(small_model), "float32") is None
    (place / name).unlink()
    assert artifacts.find(identity_of(small_model), "float32") is None


def test_an_artifact_of_other_versions_is_not_used(copy, small_model):
    artifacts, place = copy
    manifest = json.loads((place / artifact.MANIFEST).read_text())
    manifest["libraries"]["openvino"] = "2020.1.0"
    (place / artifact.MANIFEST).write_text(json.dumps(manifest))
    assert artifacts.find(identity_of(small_model), "float32") is None


def test_an_artifact_of_an_older_format_is_not_used(copy, small_model):
    artifacts, place = copy
    manifest = json.loads((place / artifact.MANIFEST).read_text())
    (place / artifact.MANIFEST).write_text(json.dumps(manifest | {"format": artifact.FORMAT - 1}))
    assert artifacts.find(identity_of(small_model), "float32") is None


async def test_a_damaged_artifact_is_made_again(copy, small_model):
    artifacts, place = copy
    (place / "model.bin").write_bytes(b"")
    local = local_of(small_model, data_dir=artifacts.folder.parent / "data", precision="float32", runtime="openvino")
    local.artifacts = artifacts
    await local.start()
    rows, _ = await embedded(local, "the red server")
    await local.close()
    assert np.isfinite(rows).all()
    assert artifact.read(place) is not None


def test_two_builds_at_once_leave_one_whole_artifact(small_model, tmp_path):
    artifacts = ArtifactStore(tmp_path)
    threads = [threading.Thread(target=build, args=(small_model, artifacts)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert artifacts.find(identity_of(small_model), "float32") is not None
    assert len(list(artifacts.folder.iterdir())) == 1


def test_who_puts_its_own_while_another_takes_the_former_away_loses_nothing(tmp_path, monkeypatch):
    place, first, second = (tmp_path / name for name in ("place", "first", "second"))
    for folder in (place, first, second):
        folder.mkdir()
        (folder / "whose").write_text(folder.name)
    removed = shutil.rmtree

    def slowly(path, **options):
        monkeypatch.undo()
        artifact.replace(second, place)
        removed(path, **options)

    monkeypatch.setattr(artifact.shutil, "rmtree", slowly)
    artifact.replace(first, place)
    assert (place / "whose").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_cannot_be_renamed_is_told(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        artifact.replace(tmp_path / "nothing", tmp_path / "place")


def test_a_compiler_is_not_given_the_gateway_s_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_API_KEYS", "sk-secret")
    written = tmp_path / "environ"
    code = f"import os; open({str(written)!r}, 'w').write(repr(dict(os.environ)))"
    process = CompileProcess().start([sys.executable, "-c", code])
    with process:
        assert process.wait(30) == 0
    assert "PATH" in written.read_text()
    assert "sk-secret" not in written.read_text()


def test_what_a_killed_build_left_is_cleared_away_a_day_later(small_model, tmp_path):
    artifacts = ArtifactStore(tmp_path)
    old, young = tmp_path / ".making-old", tmp_path / ".making-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    artifacts.put(tmp_path / "place", lambda making: (making / "file").write_text("x"))
    assert {path.name for path in tmp_path.iterdir()} == {".making-young", "place"}


def test_a_full_disk_leaves_nothing_behind(made, tmp_path):
    artifacts = ArtifactStore(tmp_path / "shelf")

    def fills_the_disk(making):
        (making / artifact.NETWORK).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OperatorError, match="No space left on device"):
        artifacts.put(artifacts.folder / "place", fills_the_disk)
    assert list(artifacts.folder.iterdir()) == []


def test_a_shelf_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be written"):
        ArtifactStore(tmp_path / "file" / "shelf").put(tmp_path / "file" / "shelf" / "place", lambda _: None)


async def test_what_openvino_cannot_compile_is_served_through_torch_with_a_warning(small_model, tmp_path, capfd):
    (tmp_path / "models").write_text("a file where the shelf should be")
    local = local_of(small_model, data_dir=tmp_path)
    await local.start()
    assert local.describe().runtime == "torch"
    assert "not_compiled" in "".join(capfd.readouterr())
    await local.close()
    insisting = local_of(small_model, data_dir=tmp_path, runtime="openvino")
    with pytest.raises(OperatorError, match="cannot be written"):
        await insisting.start()


async def test_bfloat16_is_faithful(loaded):
    from gateway.tests.engine.conftest import MINILM

    local = local_of(MINILM, precision="bfloat16", runtime="openvino")
    await local.start()
    texts = ["the quick brown fox", "你好", "def f(): pass", "word " * 150]
    exact, _ = await embedded(loaded, *texts)
    rows, _ = await embedded(local, *texts)
    assert cosines(rows, exact).min() >= MIN_COSINE
    assert MIN_COSINE <= local.describe().fidelity < 1
    alone = np.concatenate([(await embedded(local, text))[0] for text in texts])
    assert cosines(rows, alone).min() >= 0.9999
    await local.close()


def test_starting_from_an_artifact_imports_no_torch_and_reaches_for_no_network(copy, small_model):
    code = f"""
        import asyncio, sys, time
        from pathlib import Path
        from gateway.app import Gateway
        from gateway.config import load
        from gateway.embedding.embedder import Inputs

        rows = '[{{"name": "m", "source": "{small_model}", "precision": "float32", "download": false}}]'
        environ = {{"GATEWAY__AUTH": "none", "GATEWAY__MODELS": rows, "GATEWAY_DATA_DIR": "{copy[0].folder.parent}"}}

        async def main():
            gateway = Gateway(load(environ=environ))
            embedder = gateway.catalog.models[0].embedder
            embedder.embedder.artifacts.folder = Path("{copy[0].folder}")
            await gateway.load()
            prepared = await embedder.prepare(Inputs(["hello"], False, "a", time.monotonic() + 60))
            print((await embedder.embed(prepared)).rows.shape, embedder.describe().runtime)
            await gateway.close()

        asyncio.run(main())
        assert sys.modules["openvino_telemetry"] is None
        print(sorted({{"torch", "transformers", "sentence_transformers", "huggingface_hub"}} & set(sys.modules)))
    """
    ended = run(code, HF_HUB_OFFLINE="1", HOME=str(copy[0].folder.parent))
    assert ended.returncode == 0, ended.stderr
    assert "(1, 32) openvino" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def test_compiling_sends_no_usage_data(small_model, tmp_path):
    code = f"""
        import sys
        from gateway.engine import compiler
        compiler.run(compiler.CompileJob("{small_model}", "small", "float32", "{tmp_path}"))
        import openvino.tools.ovc.telemetry_utils as telemetry
        print(telemetry.tm.__name__)
    """
    ended = run(code, HF_HUB_OFFLINE="1", HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "openvino.tools.ovc.telemetry_stub"


def test_the_compiler_says_in_one_line_what_is_wrong(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    (tmp_path / "vocab.txt").write_text("a")
    with pytest.raises(OperatorError) as caught:
        compile_model(
            tmp_path,
            source="x",
            precision="float32",
            artifacts=ArtifactStore(tmp_path / "shelf"),
            progress=print,
            child=CompileProcess(),
        )
    assert "is of an unknown network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_is_killed_is_an_error_and_not_a_hang(small_model, tmp_path):
    order = json.dumps({"folder": str(small_model), "source": "s", "precision": "float32", "artifacts": str(tmp_path)})
    child = subprocess.Popen([sys.executable, "-m", "gateway.engine.compiler", order], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline()
    child.kill()
    child.communicate(timeout=10)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize("first", ["", "os.close(1)"], ids=["with its output open", "with its output closed"])
def test_a_compiler_that_stands_still_is_given_up(first, tmp_path):
    command = [sys.executable, "-c", f"import os, threading; {first or 'pass'}; threading.Event().wait()"]
    with pytest.raises(OperatorError, match=r"given up: it had not ended after 0\.5 seconds"):
        compile_model(
            tmp_path,
            source="x",
            precision="float32",
            artifacts=ArtifactStore(tmp_path),
            progress=print,
            child=CompileProcess(),
            command=command,
            timeout_seconds=0.5,
        )


def interrupted(tmp_path, command, *, child, progress=print):
    with pytest.raises(Interrupted):
        compile_model(
            tmp_path,
            source="x",
            precision="float32",
            artifacts=ArtifactStore(tmp_path),
            progress=progress,
            child=child,
            command=command,
        )


def test_a_stop_while_compiling_is_an_error_of_its_own(tmp_path):
    interrupted(tmp_path, [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"], child=CompileProcess())


def test_whoever_closes_the_model_ends_its_compiler(tmp_path):
    """Which else would stand still for half an hour."""
    code = """import threading; print('{"step": "loading"}', flush=True); threading.Event().wait()"""
    child = CompileProcess()
    interrupted(tmp_path, [sys.executable, "-c", code], child=child, progress=lambda _: child.stop())
    assert child.process.returncode is not None
    child.stop()


def test_a_compiler_that_was_stopped_before_it_began_does_not_begin(tmp_path):
    child = CompileProcess()
    child.stop()
    interrupted(tmp_path, [sys.executable, "-c", ""], child=child)
    assert child.process is None


async def test_a_model_that_is_closed_while_it_compiles_ends_at_once(small_model, tmp_path):
    local = local_of(small_model, data_dir=tmp_path, precision="float32", runtime="openvino")
    starting = asyncio.create_task(local.start())
    async with asyncio.timeout(30):
        while local.compile_process.process is None:
            await asyncio.sleep(0.001)
        await local.close()
        with pytest.raises(Interrupted):
            await starting
    assert local.compile_process.process.returncode is not None


def as_made(artifacts, place, name, **fields):
    """Another copy on the shelf, which says other things of itself."""
    other = shutil.copytree(place, artifacts.folder / name)
    manifest = json.loads((other / artifact.MANIFEST).read_text())
    (other / artifact.MANIFEST).write_text(json.dumps(manifest | fields))
    return other


def test_without_the_files_the_newest_of_a_source_is_found(copy, small_model):
    artifacts, place = copy
    made_at = artifact.read(place).made_at
    as_made(artifacts, place, "0-older", made_at=made_at - 1)
    newer = as_made(artifacts, place, "a-newer", made_at=made_at + 1)
    as_made(artifacts, place, "b-older", made_at=made_at - 2)
    assert artifacts.find_by_source(str(small_model), "float32") == newer
    assert artifacts.find_by_source("another/model", "float32") is None
    assert artifacts.find_by_source(str(small_model), "bfloat16") is None


def test_two_folders_of_one_name_are_not_taken_for_each_other(copy, small_model):
    artifacts, place = copy
    as_made(artifacts, place, "other", origin="/somewhere/else")
    with pytest.raises(OperatorError, match="/somewhere/else") as caught:
        artifacts.find_by_source(str(small_model), "float32")
    assert str(place) in str(caught.value)


async def test_an_edited_folder_is_compiled_anew_and_served_as_it_is_now(small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "model")
    served = []
    for mode in ("cls", "mean", "cls"):
        [pooling] = folder.glob("*_Pooling/config.json")
        pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": mode}))
        local = local_of(folder, data_dir=tmp_path / "data", precision="float32", runtime="openvino")
        await local.start()
        rows, _ = await embedded(local, "the red server", normalize=False)
        expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(["the red server"])
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        served.append(local.describe().fingerprint)
        await local.close()
    assert served[0] == served[2] != served[1]


def test_files_that_change_while_they_are_loaded_make_no_artifact(small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "model")
    artifacts = ArtifactStore(tmp_path / "shelf")

    def edit(step):
        if step == "loading":
            edited = tmp_path / "config.json"
            edited.write_text((folder / "config.json").read_text().replace('"gelu"', '"relu"'))
            edited.replace(folder / "config.json")  # at once: the child reads the file meanwhile, and half of it is no JSON

    with pytest.raises(OperatorError, match="changed while they were loaded"):
        compile_model(folder, source="m", precision="float32", artifacts=artifacts, progress=edit, child=CompileProcess())
    assert not list(artifacts.folder.glob("*/manifest.json"))
