"""What an operator must mend is one line on standard error and exit code 2, never a stack trace."""

import json
import resource
import socket
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from gateway.tests.cli.conftest import Command, Ended, told

NO_HUB = {"HF_HUB_OFFLINE": "1", "GATEWAY__AUTH": "none", "GATEWAY__SERVER__PORT": "0"}

WRONG = {
    "single underscores": ({"GATEWAY_SERVER_PORT": "9000"}, "is not read: did you mean GATEWAY__SERVER__PORT?"),
    "an unknown setting": ({"GATEWAY__SERVER__PROT": "1"}, "unknown setting 'server.prot': did you mean 'port'?"),
    "a wrong type": ({"GATEWAY__SERVER__PORT": "tcp://10.0.0.1:8000"}, "server.port"),
    "out of range": ({"GATEWAY__SERVER__PORT": "99999"}, "server.port"),
    "no such file": ({"GATEWAY_CONFIG": "missing.toml"}, "the configuration file missing.toml cannot be read"),
    "settings at odds": ({"GATEWAY__ENGINE__MAX_QUEUE_TOKENS": "5"}, "engine.max_queue_tokens must be at least"),
    "an unknown backend": ({"GATEWAY__MODELS": '[{"name":"m","backend":"olama"}]'}, "no backend is named 'olama'"),
    "a row's setting": ({"GATEWAY__MODELS": '[{"name":"m","source":"x","devise":"cpu"}]'}, "did you mean 'device'?"),
    "a name used twice": ({"GATEWAY__MODELS": '[{"name":"m","source":"x","aliases":["m"]}]'}, "the name 'm' is used twice"),
    "a default that is not served": (
        {"GATEWAY__SERVER__DEFAULT_MODEL": "gone"},
        "server.default_model: no model has the name",
    ),
    "a name of another encoding": ({"GATEWAY__MODELS": '[{"name":"gpt-4o","source":"x"}]'}, "o200k_base"),
}
WRONG_AT_START = {
    "a short key": ({"GATEWAY_API_KEYS": "too-short"}, "key 1 of GATEWAY_API_KEYS is not usable"),
    "no key file": ({"GATEWAY_API_KEYS_FILE": "missing"}, "auth.keys_file: missing cannot be read"),
    "no data folder": ({"GATEWAY_DATA_DIR": "/dev/null/data"}, "the data folder /dev/null/data cannot be written"),
    "no such address": ({"GATEWAY__SERVER__HOST": "no such host"}, "cannot listen on no such host:0"),
}


@pytest.mark.parametrize(("environ", "words"), WRONG.values(), ids=WRONG)
def test_a_configuration_that_cannot_work_is_refused_in_one_line(gateway: Command, environ: dict[str, str], words: str):
    assert words in told(gateway("serve", **environ))


@pytest.mark.parametrize(("environ", "words"), WRONG_AT_START.values(), ids=WRONG_AT_START)
def test_a_server_that_cannot_begin_says_why_at_the_end(gateway: Command, environ: dict[str, str], words: str):
    ended = gateway("serve", **{"GATEWAY__SERVER__PORT": "0", **environ})
    assert ended.code == 2
    assert "Traceback" not in ended.err
    *log_lines, last = ended.err.splitlines()
    assert last.startswith("gateway: ")
    assert words in last
    assert all(json.loads(line)["event"] == "stopped" for line in log_lines)


def database(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "gateway.db"


def told_last(ended: Ended) -> str:
    """The one line of a server that ended, after those it logged before."""
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert ended.err.count("gateway: ") == 1
    return ended.err.splitlines()[-1]


def test_a_damaged_database_is_refused_in_one_line(gateway: Command, tmp_path: Path):
    database(tmp_path).write_bytes(b"this was a database" * 1000)
    line = told_last(gateway("serve", GATEWAY__SERVER__PORT="0"))
    assert line.startswith("gateway: the key database")
    assert line.endswith("gateway.db cannot be used: file is not a database")


def test_a_database_cut_short_is_refused_in_one_line(gateway: Command, tmp_path: Path):
    assert gateway("keys", "create").code == 0
    path = tmp_path / "data" / "gateway.db"
    path.write_bytes(path.read_bytes()[:2048])
    assert told_last(gateway("serve", GATEWAY__SERVER__PORT="0")).startswith("gateway: the key database")


def test_a_database_of_another_schema_is_refused_in_one_line(gateway: Command, tmp_path: Path):
    with closing(sqlite3.connect(database(tmp_path))) as connection:
        connection.execute("create table keys (id integer)")
    line = told_last(gateway("serve", GATEWAY__SERVER__PORT="0"))
    assert (
        line
        == "gateway: the key database is not a gateway's: its table 'keys' has no public_id, name, digest, created_at, revoked_at"
    )


@pytest.mark.parametrize("arguments", [["serve"], ["keys", "create"]], ids=" ".join)
def test_a_full_disk_is_told_in_one_line(gateway: Command, arguments: list[str]):
    """A limit on the size of files is what a full disk is to whoever writes: the write fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        ended = gateway(*arguments, GATEWAY__SERVER__PORT="0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told_last(ended).startswith("gateway: the key database")


def test_a_port_in_use_is_refused_in_one_line(gateway: Command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = told(gateway("serve", "--port", str(port), GATEWAY__AUTH="none"))
    assert line.startswith(f"gateway: cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("download", [True, False])
def test_missing_weights_are_told_with_the_three_ways_to_provide_them(gateway: Command, tmp_path: Path, download: bool):
    rows = json.dumps([{"name": "m", "source": "nobody/no-such-model", "download": download}])
    ended = gateway("serve", **NO_HUB, GATEWAY__MODELS=rows, HF_HOME=str(tmp_path / "hub"))
    assert ended.code == 2
    assert "Traceback" not in ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("gateway: the weights of 'nobody/no-such-model' are not on this machine")
    assert "three ways" in last
    assert "folder" in last
    assert "gateway serve --model nobody/no-such-model" in last


@pytest.mark.parametrize("source", ["./missing", "."])
def test_a_folder_without_a_model_is_told(gateway: Command, source: str):
    ended = gateway("serve", "--model", source, **NO_HUB)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "folder" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["serve", "--prot", "1"], ["serve", "--port", "x"], ["sever"], ["keys", "revoke"]])
def test_a_wrong_command_line_has_exit_code_2_and_no_stack_trace(gateway: Command, arguments: list[str]):
    ended = gateway(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err
    assert "Traceback" not in ended.err


def test_the_version_is_the_installed_one(gateway: Command):
    assert gateway("--version").out == f"gateway, version {version('embeddings-gateway')}\n"


def test_help_lists_the_commands(gateway: Command):
    ended = gateway("--help")
    assert ended.code == 0
    for command in ("serve", "keys", "models", "config", "bench", "healthcheck"):
        assert f"\n  {command} " in ended.out
    assert gateway("-h") == ended
