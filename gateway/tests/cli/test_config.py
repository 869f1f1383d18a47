"""`gateway config`: checked, shown without secrets, explained."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from gateway.build import BUILTIN_BACKENDS
from gateway.cli import cli
from gateway.config import Config, ModelRow, load
from gateway.embedding.registry import backend_of
from gateway.errors import OperatorError
from gateway.tests.cli.conftest import Command, told

PLAIN = "a-key-somebody-else-made"
EVERYTHING = """
auth = "keys"
[server]
port = 9001
host = "::1"
[limits]
max_input_tokens = 100
[[models]]
name = "mine"
aliases = ["yours"]
source = "some/where"
prompts = { query = "query: " }
"""


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "some.toml").write_text(text)
    return "some.toml"


def test_what_would_start_is_ok(gateway: Command, tmp_path: Path):
    ended = gateway("config", "check")
    assert (ended.code, ended.out, ended.err) == (0, "ok: all-MiniLM-L6-v2\n", "")
    assert gateway("config", "check", "--config", written(tmp_path, EVERYTHING)).out == "ok: mine\n"
    assert not (tmp_path / "data").exists()  # checking makes nothing


@pytest.mark.parametrize("text", ["", EVERYTHING, '[auth]\nkeys = { env = "SOME_KEYS" }\nkeys_file = "keys.txt"'])
def test_what_is_shown_can_be_read_back_and_is_the_same(gateway: Command, tmp_path: Path, text: str):
    shown = gateway("config", "show", "--config", written(tmp_path, text))
    assert (shown.code, shown.err) == (0, "")
    (tmp_path / "shown.toml").write_text(shown.out)
    assert gateway("config", "show", "--config", "shown.toml", GATEWAY_DATA_DIR="") == shown
    environ = {"GATEWAY_DATA_DIR": str(tmp_path / "data")}
    assert load(tmp_path / "shown.toml", environ={}) == load(tmp_path / "some.toml", environ=environ)


def test_a_secret_is_shown_as_where_it_is_kept(gateway: Command):
    ended = gateway("config", "show", GATEWAY_API_KEYS=PLAIN)
    assert tomllib.loads(ended.out)["auth"]["keys"] == {"env": "GATEWAY_API_KEYS"}
    assert PLAIN not in ended.out + ended.err


@pytest.mark.parametrize(
    "setting",
    [
        'api_key = "hidden"',
        'Password = "hidden"',
        'client_secret = "hidden"',
        'headers = { api-key = "hidden" }',
        'servers = [{ password = "hidden" }]',
        'api_keys = ["hidden"]',
    ],
)
def test_a_backends_secret_that_was_written_out_is_masked(gateway: Command, tmp_path: Path, setting: str):
    ended = gateway("config", "show", "--config", written(tmp_path, f'[[models]]\nname = "m"\nbackend = "b"\n{setting}'))
    assert ended.code == 0
    assert "hidden" not in ended.out
    assert "***" in ended.out


def test_the_example_is_a_configuration_of_defaults(tmp_path: Path, gateway: Command):
    path = written(tmp_path, gateway("config", "example").out)
    example, builtin = load(tmp_path / path, environ={}), Config()
    assert replace(example, models=builtin.models) == builtin
    assert [settled(row) for row in example.models] == [settled(row) for row in builtin.models]
    assert gateway("config", "check", "--config", path).out == "ok: all-MiniLM-L6-v2\n"


def settled(row: ModelRow) -> tuple[ModelRow, object]:
    """A row with what its backend makes of its settings, defaults included."""
    return replace(row, settings={}), backend_of(row, {backend.name: backend for backend in BUILTIN_BACKENDS})[1]


COMMANDS = ["config check", "config show", "serve", "keys list", "keys create", "keys revoke x"]


def test_commands_refuse_a_wrong_configuration_alike(gateway: Command, tmp_path: Path):
    path = written(tmp_path, "[server]\nprot = 1")
    lines = {told(gateway(*command.split(), "--config", path)) for command in COMMANDS}
    assert lines == {"gateway: unknown setting 'server.prot': did you mean 'port'?"}
    assert not (tmp_path / "data").exists()


OTHER = {"backend": "tei", "url": "http://127.0.0.1:9"}
LACKING = {
    "a key that is set nowhere": (
        {"backend": "openai", "url": "https://127.0.0.1:9/v1", "key": {"env": "NOT_SET_ANYWHERE"}},
        r"models[{}].key: the environment variable NOT_SET_ANYWHERE, named as a secret, is not set",
    ),
    "a key in a file that is not there": (
        {"backend": "ollama", "url": "http://127.0.0.1:9", "key": {"file": "no-such-key"}},
        r"models[{}].key: ",
    ),
    "a header's secret": (
        {"backend": "tei", "url": "http://127.0.0.1:9", "headers": {"x-team": {"env": "NOT_SET_ANYWHERE"}}},
        r"models[{}].x-team: the environment variable NOT_SET_ANYWHERE, named as a secret, is not set",
    ),
    "a file of authorities": (
        {"backend": "openai", "url": "https://127.0.0.1:9/v1", "ca_file": "no-such-authorities.pem"},
        r"models[{}]: ca_file: no-such-authorities.pem cannot be read",
    ),
    "a folder": ({"source": "./no-such-folder"}, r"models[{}]: the model folder no-such-folder does not exist"),
    "files, and leave to fetch them": (
        {"source": "nobody/has-such-a-model", "download": False},
        r"models[{}]: the weights of 'nobody/has-such-a-model' are not on this machine",
    ),
    "a runtime for its device": (
        {"source": "sentence-transformers/all-MiniLM-L6-v2", "runtime": "openvino", "device": "cuda"},
        r"models[{}]: runtime 'openvino' is for the CPU",
    ),
}


def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *rows: dict[str, object]) -> Exception | str:
    """What `gateway config check` raises, or says."""
    monkeypatch.chdir(tmp_path)
    environ = {"GATEWAY_DATA_DIR": str(tmp_path / "data"), "GATEWAY__MODELS": json.dumps(rows)}
    ended = CliRunner().invoke(cli, ["config", "check"], env=environ)
    return ended.exception or ended.output


@pytest.mark.parametrize("place", ["alone", "first", "last"])
@pytest.mark.parametrize("case", LACKING)
def test_what_a_row_lacks_is_told_of_it_alone_and_as_a_member(monkeypatch, tmp_path, case: str, place: str):
    row, words = LACKING[case]
    member = {"backend": "sentence-transformers", "name": "lacking", **row}
    members = [member, OTHER] if place == "first" else [OTHER, member]
    found = checked(monkeypatch, tmp_path, {"name": "m", **row} if place == "alone" else group(members))
    assert isinstance(found, OperatorError)
    assert str(found).startswith(words.format("m" if place == "alone" else "m/lacking"))
    assert str(found).count("models[") == 1


def test_a_group_that_lacks_nothing_is_ok(monkeypatch, tmp_path):
    monkeypatch.setenv("THEIR_KEY", "their-key")
    paid = {"backend": "openai", "url": "https://127.0.0.1:9/v1", "key": {"env": "THEIR_KEY"}}
    local = {"backend": "sentence-transformers", "source": "sentence-transformers/all-MiniLM-L6-v2"}
    assert checked(monkeypatch, tmp_path, group([paid, OTHER, local])) == "ok: m\n"
    assert not (tmp_path / "data").exists()


def test_members_of_several_kinds_are_refused_by_name(monkeypatch, tmp_path):
    scoring = {"name": "there", "backend": "openai", "url": "http://127.0.0.1:9/v1", "task": "rerank"}
    local = {"name": "here", "backend": "sentence-transformers", "source": "sentence-transformers/all-MiniLM-L6-v2"}
    for embedding in (OTHER | {"name": "here"}, local):
        found = str(checked(monkeypatch, tmp_path, group([scoring, embedding])))
        assert found.startswith("models[m].members: they have to be of one kind")
        assert "'there' is of the kind reranker, 'here' is of the kind embedder" in found
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("setting", "found", "wanted"), [("MODEL", "reranker", "embedder"), ("RERANKER", "embedder", "reranker")])
def test_a_default_model_of_another_kind_is_refused(monkeypatch, tmp_path, setting: str, found: str, wanted: str):
    scoring = {"name": "reranker", "aliases": ["its-alias"], "backend": "openai", "url": "http://127.0.0.1:9/v1", "task": "rerank"}
    rows = scoring, {"name": "embedder", **OTHER}
    monkeypatch.setenv(f"GATEWAY__SERVER__DEFAULT_{setting}", "its-alias" if found == "reranker" else "embedder")
    said = str(checked(monkeypatch, tmp_path, *rows))
    assert said.startswith(f"server.default_{setting.lower()}: the model ")
    assert f"is of the kind {found}, not {wanted}" in said
    monkeypatch.setenv(f"GATEWAY__SERVER__DEFAULT_{setting}", wanted)
    assert checked(monkeypatch, tmp_path, *rows) == "ok: reranker, embedder\n"


def group(members: list[dict[str, object]]) -> dict[str, object]:
    return {"name": "m", "backend": "group", "members": members}


def test_models_that_the_budget_has_no_room_for_are_refused_where_their_size_is_known(gateway: Command, tmp_path: Path):
    from gateway.testing.static_models import save_model2vec

    folder = str(save_model2vec(tmp_path / "static"))
    rows = [{"name": name, "source": folder, "load": load} for name, load in (("a", "start"), ("b", "start"), ("c", "first_use"))]

    def check(budget: int, *chosen: int):
        models = json.dumps([rows[number] for number in chosen])
        return gateway("config", "check", GATEWAY__ENGINE__MEMORY_BUDGET=str(budget), GATEWAY__MODELS=models)

    told = gateway("models", "--json", GATEWAY__MODELS=json.dumps(rows))
    size = json.loads(told.out)[0]["bytes"]
    assert size > 1000
    assert check(size, 0).code == check(2 * size, 0, 1).code == check(2 * size, 0, 2).code == 0
    assert f"models[c]: it takes {size:,} bytes, and engine.memory_budget is {size - 1:,}\n" in check(size - 1, 2).err
    for chosen in ((0, 1), (0, 2)):
        refused = check(2 * size - 1, *chosen)
        assert (refused.code, f"of which models that stay loaded take {size:,}" in refused.err) == (2, True)
    wrong = gateway("config", "check", GATEWAY__MODELS=json.dumps([{"name": "a", "source": folder, "unload_after": 5}]))
    assert "unload_after of the model 'a' needs load = 'first_use'" in wrong.err
