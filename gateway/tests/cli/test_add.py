"""`gateway models add`: whole or not at all, and nothing of what a person wrote is lost."""

import json
import tomllib
from pathlib import Path

import pytest

from gateway.cli.known_models import KNOWN
from gateway.cli.source_row import row_of, table
from gateway.config import BUILTIN_MODELS, load
from gateway.testing.multilingual import made
from gateway.tests.cli.conftest import Command, told

NAME = "paraphrase-multilingual-MiniLM-L12-v2"
NO_HUB = {"HF_HUB_OFFLINE": "1"}
WRITTEN = """# ours, do not touch
[server]
port = 9000  # behind the proxy

# the small one
[[models]]
name = "small"
source = "org/small"  # from the hub
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(WRITTEN)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made(tmp_path / "made")
    return (tmp_path / "made" / "whole").rename(tmp_path / "multilingual")


def test_what_stood_in_the_file_stays_to_the_letter(gateway: Command, file: Path):
    ended = gateway("models", "add", "multilingual", **NO_HUB)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{NAME}: written to gateway.toml\n")
    assert "fetched from the hub" in ended.out
    assert file.read_text().startswith(WRITTEN)
    small, added = load(file, environ={}).models
    assert (small.name, added.name) == ("small", NAME)
    assert added.aliases == (f"sentence-transformers/{NAME}", "multilingual")
    assert added.settings == {"source": f"sentence-transformers/{NAME}"}


def test_the_builtin_model_is_still_served_where_no_model_was_written(gateway: Command, tmp_path: Path):
    (tmp_path / "gateway.toml").write_text("[server]\nport = 9000")  # without a last newline
    assert gateway("models", "add", "multilingual", **NO_HUB).code == 0
    config = load(tmp_path / "gateway.toml", environ={})
    assert config.server.port == 9000
    assert [row.name for row in config.models] == [BUILTIN_MODELS[0].name, NAME]
    assert config.models[0] == BUILTIN_MODELS[0]


def test_without_a_file_one_is_made(gateway: Command, tmp_path: Path):
    assert gateway("models", "add", "multilingual", **NO_HUB).code == 0
    assert [row.name for row in load(tmp_path / "gateway.toml", environ={}).models] == [BUILTIN_MODELS[0].name, NAME]


def test_a_folder_is_written_by_its_whole_name(gateway: Command, file: Path, model: Path):
    ended = gateway("models", "add", "multilingual", "--source", "./multilingual")
    assert ended.out == f"{NAME}: written to gateway.toml\n"
    assert load(file, environ={}).models[1].settings["source"] == str(model.resolve())


def test_a_folder_without_a_model_is_refused_and_nothing_is_written(gateway: Command, file: Path):
    assert "does not exist" in told(gateway("models", "add", "multilingual", "--source", "./nowhere"))
    assert file.read_text() == WRITTEN


def test_printing_writes_nothing(gateway: Command, file: Path):
    ended = gateway("models", "add", "multilingual", "--print")
    [row] = tomllib.loads(ended.out)["models"]
    assert row["name"] == NAME
    assert file.read_text() == WRITTEN


def test_the_file_that_is_named_is_the_one_written_and_keeps_its_mode_and_its_link(gateway: Command, file: Path, tmp_path: Path):
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert gateway("models", "add", "multilingual", "--config", "link.toml", **NO_HUB).code == 0
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert len(load(file, environ={}).models) == 2


def test_lines_end_as_they_did(gateway: Command, file: Path):
    file.write_bytes(WRITTEN.replace("\n", "\r\n").encode())
    assert gateway("models", "add", "multilingual", **NO_HUB).code == 0
    content = file.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n")


REFUSED = {
    "twice": (WRITTEN + f'[[models]]\nname = "{NAME}"\nsource = "x"\n', f"has a model named '{NAME}' already"),
    "an alias of another": (WRITTEN + '[[models]]\nname = "m"\naliases = ["multilingual"]\nsource = "x"\n', "is used twice"),
    "not TOML": ("[server", "is not valid TOML"),
    "wrong already": ("[server]\nprot = 1\n", "did you mean 'port'?"),
    "models as one value": ('models = [{ name = "m", source = "x" }]\n', "add the row by hand"),
}


@pytest.mark.parametrize(("written", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_added_to_stays_as_it_was(gateway: Command, file: Path, written: str, words: str):
    file.write_text(written)
    assert words in told(gateway("models", "add", "multilingual", **NO_HUB))
    assert file.read_text() == written
    assert sorted(path.name for path in file.parent.iterdir() if path.suffix == ".toml") == ["gateway.toml"]


def test_rows_of_the_environment_are_not_hidden_behind(gateway: Command, file: Path):
    words = told(gateway("models", "add", "multilingual", GATEWAY__MODELS='[{"name":"a","source":"b"}]'))
    assert "GATEWAY__MODELS is set" in words
    assert file.read_text() == WRITTEN


def test_a_folder_that_cannot_be_written_is_told(gateway: Command):
    words = told(gateway("models", "add", "multilingual", "--config", "nowhere/gateway.toml", **NO_HUB))
    assert "nowhere/gateway.toml cannot be written: No such file or directory" in words


def test_an_unknown_name_lists_those_there_are(gateway: Command):
    ended = gateway("models", "add", "lingual")
    assert ended.code == 2
    assert "multilingual" in ended.err


@pytest.mark.parametrize("with_others", [True, False])
def test_a_folder_alone_gets_a_row_with_what_its_files_say(gateway: Command, file: Path, model: Path, with_others: bool):
    (model / "README.md").write_text('---\ntags: [sentence]\n---\n{"loss": "MSE", "matryoshka_dims": [\n 384, 64]}')
    if not with_others:
        file.unlink()
    ended = gateway("models", "add", "./multilingual")
    assert (ended.code, ended.err) == (0, "")
    row = load(file, environ={}).models[-1]
    assert (row.name, row.aliases, row.settings) == ("multilingual", (), {"source": str(model.resolve())})
    assert gateway("models", "add", "./multilingual").code == 2  # its name is taken
    written = file.read_text()
    assert "# dimensions: " in written
    assert "# trained for shorter vectors too: 384, 64" in written
    if with_others:
        assert written.startswith(WRITTEN)


def test_a_hub_id_gets_the_prompts_of_its_card(gateway: Command, file: Path):
    assert gateway("models", "add", "intfloat/e5-base-v2", **NO_HUB).code == 0
    row = load(file, environ={}).models[-1]
    assert (row.name, row.aliases) == ("e5-base-v2", ("intfloat/e5-base-v2",))
    assert row.settings == {"source": "intfloat/e5-base-v2", "prompts": {"query": "query: ", "document": "passage: "}}


def test_a_word_that_is_no_model_and_a_folder_that_is_not_served_are_refused(gateway: Command, file: Path, model: Path):
    assert "is neither a folder, nor a hub id" in told(gateway("models", "add", "multilingul"))
    (model / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "own.Model"}]')
    for command in ("add", "check"):
        assert "needs code of its own" in told(gateway("models", command, "./multilingual"))
    assert file.read_text() == WRITTEN


def test_check_says_how_a_folder_would_be_served(gateway: Command, model: Path):
    ended = gateway("models", "check", "./multilingual")
    assert (ended.code, ended.err) == (0, "")
    said = dict(line.split(": ", 1) for line in ended.out.splitlines())
    assert said["kind"].startswith("an embedder, ")
    assert said["served"].startswith("compiled with OpenVINO")
    assert said["dimensions"].isdigit()
    assert said["reads"].endswith(" tokens at once")
    assert not (model.parent / "data").exists()  # nothing was compiled


def test_a_row_of_each_of_the_most_used_models_passes_the_check(gateway: Command, tmp_path: Path):
    rows = [table(row_of(hub_id, is_examined=False)[0]) for hub_id in KNOWN]
    assert len(rows) >= 20
    ended = gateway("config", "check", **NO_HUB, HF_HOME=str(tmp_path), GATEWAY__MODELS=json.dumps(rows), GATEWAY__AUTH="none")
    assert (ended.code, ended.err) == (0, "")
    prompts = {row["name"]: set(row.get("prompts", ())) for row in rows}
    assert prompts["multilingual-e5-large"] == {"query", "document"}
    assert prompts["bge-m3"] == set()
