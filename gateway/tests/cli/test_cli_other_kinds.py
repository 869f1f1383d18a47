"""What is no embedder is refused by every command, on every runtime, before anything is loaded."""

import json
from pathlib import Path

import pytest

from gateway.testing import model_folders as folders
from gateway.tests.cli.conftest import Command, told

COMMANDS = {
    "build": ["models", "build"],
    "check": ["config", "check"],
    "embed": ["embed", "texts.jsonl", "-o", "vectors.npy"],
    "serve": ["serve"],
}


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedder's folder, but for the pooling that its modules name."""
    folder = folders.base("bert", tmp_path_factory.mktemp("colbert"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.multi_vector_encoder.modules.MultiVectorMask"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("runtime", ["auto", "openvino", "torch"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it_on_every_runtime(
    command: str, runtime: str, colbert: Path, gateway: Command, tmp_path: Path
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "gateway.toml").write_text(f'[[models]]\nname = "m"\nsource = "{colbert}"\nruntime = "{runtime}"\n')
    ended = gateway(*COMMANDS[command], GATEWAY__SERVER__PORT="0", GATEWAY__AUTH="none")
    assert ended.code == 2
    assert "multi-vector encoder (such as ColBERT)" in ended.err
    assert "as the source" in ended.err.splitlines()[-1]


def test_a_model_named_by_its_folder_alone_is_refused(colbert: Path, gateway: Command) -> None:
    ended = gateway("serve", "--model", str(colbert), "--port", "0", GATEWAY__AUTH="none")
    assert ended.code == 2
    assert "multi-vector encoder" in ended.err


def test_the_table_of_models_says_it_beside_the_others(colbert: Path, gateway: Command, tmp_path: Path) -> None:
    bare = folders.bare(folders.base("bert", tmp_path), tmp_path / "bare")
    rows = [{"name": "s", "source": str(colbert)}, {"name": "b", "source": str(bare)}]
    ended = gateway("models", "--json", GATEWAY__MODELS=json.dumps(rows))
    assert ended.code == 0
    first, second = json.loads(ended.out)
    assert "multi-vector encoder" in first["state"]
    assert second["state"] == "not compiled; no modules.json: mean pooling"


def test_checking_says_it_in_one_line(colbert: Path, gateway: Command) -> None:
    said = told(gateway("config", "check", GATEWAY__MODELS=json.dumps([{"name": "s", "source": str(colbert)}])))
    assert "modules.json" not in said
    assert str(colbert) in said
