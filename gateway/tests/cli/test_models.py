"""`gateway models`: what is known before anything is loaded, and compiling ahead of time."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from click.testing import CliRunner, Result

from gateway.cli import cli
from gateway.embedding.backend import UNKNOWN
from gateway.testing import model_folders
from gateway.tests.cli.conftest import Command, told

NAME = "all-MiniLM-L6-v2"
OTHER = {"backend": "tei", "url": "http://127.0.0.1:9"}


def test_a_model_is_compiled_ahead_of_time_and_then_known(gateway: Command, tmp_path: Path):
    [before] = json.loads(gateway("models", "--json").out)
    assert (before["state"], before["fidelity"], before["source"]) == ("not compiled", None, f"sentence-transformers/{NAME}")
    made = gateway("models", "build")
    assert made.code == 0
    place = Path(made.out.splitlines()[-1].removeprefix(f"{NAME}: "))
    assert place.parent == tmp_path / "data" / "models"
    assert {path.name for path in place.iterdir()} == {"model.xml", "model.bin", "tokenizer.json", "manifest.json"}
    [after] = json.loads(gateway("models", "--json").out)
    assert after["fidelity"] >= 0.999
    assert (after["state"], after["runtime"], after["dimensions"], after["max_tokens"]) == ("compiled", "openvino", 384, 256)
    for heading, value in (("FIDELITY", str(after["fidelity"])), ("STATE", "compiled"), ("NAME", NAME)):
        table = gateway("models").out
        assert heading in table.splitlines()[0]
        assert value in table.splitlines()[1]
    manifest = (place / "manifest.json").stat().st_mtime_ns
    assert gateway("models", "build", "text-embedding-3-small").out.splitlines()[-1] == f"{NAME}: {place}"
    assert (place / "manifest.json").stat().st_mtime_ns == manifest


def test_a_model_that_is_not_configured_is_not_compiled(gateway: Command):
    assert "no model has the name or alias 'other'" in told(gateway("models", "build", "other"))


def test_checking_finds_that_a_models_files_are_missing(gateway: Command, tmp_path: Path):
    rows = {
        "the model folder nope does not exist": '[[models]]\nname = "m"\nsource = "./nope"\n',
        "are not on this machine": '[[models]]\nname = "m"\nsource = "BAAI/some-model"\ndownload = false\n',
    }
    for words, text in rows.items():
        (tmp_path / "some.toml").write_text(text)
        assert words in told(gateway("config", "check", "--config", "some.toml"))


def group(tmp_path: Path, *members: dict[str, object]) -> Callable[..., Result]:
    """Runs `gateway models` in this process, with one group of these members."""
    rows = json.dumps([{"name": "g", "backend": "group", "members": members}])
    return partial(CliRunner().invoke, cli, env={"GATEWAY_DATA_DIR": str(tmp_path / "data"), "GATEWAY__MODELS": rows})


def test_a_groups_members_are_compiled_ahead_of_time_and_then_known(tmp_path: Path):
    folder = model_folders.base("bert", tmp_path / "folder")
    local = {"backend": "sentence-transformers", "source": str(folder), "precision": "float32"}
    here, torch = {"name": "here", "runtime": "openvino", **local}, {"runtime": "torch", **local}
    run = group(tmp_path, OTHER, here, torch)
    [before] = json.loads(run(["models", "--json"]).stdout)
    assert before["source"] == "group"
    assert before["state"] == f"1-tei: {UNKNOWN}; here: not compiled; 3-sentence-transformers: {UNKNOWN}"
    made = run(["models", "build"])
    assert made.exception is None
    lines = dict(line.split(": ", 1) for line in made.stdout.splitlines() if line.startswith("g/"))
    assert lines["g/1-tei"] == "nothing to compile: it is not served on this machine"
    assert lines["g/3-sentence-transformers"] == "nothing to compile: it runs through torch"
    assert (Path(lines["g/here"]) / "model.xml").is_file()
    assert "here: compiled;" in json.loads(run(["models", "--json"]).stdout)[0]["state"]


def test_a_member_that_cannot_be_compiled_is_named_and_the_table_says_so(tmp_path: Path):
    run = group(tmp_path, {"backend": "sentence-transformers", "source": "./nope"}, OTHER)
    named = "models[g/1-sentence-transformers]: the model folder nope does not exist"
    assert str(run(["models", "build"]).exception) == named
    [row] = json.loads(run(["models", "--json"]).stdout)
    assert row["state"] == f"1-sentence-transformers: refused: {named}; 2-tei: {UNKNOWN}"
