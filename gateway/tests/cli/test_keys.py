"""`gateway keys`: a key is shown once, and lives until it is revoked."""

import json
import re
import shlex
from pathlib import Path

from gateway.tests.cli.conftest import Command, told

KEY = re.compile(r"sk-gw-([0-9A-Za-z]{10})-[0-9A-Za-z]{43}")
PLAIN = "a-key-somebody-else-made"


def created(gateway: Command, *arguments: str, **environ: str) -> tuple[str, str]:
    """The key that was made and its id."""
    ended = gateway("keys", "create", *arguments, **environ)
    assert (ended.code, ended.err) == (0, "")
    found = KEY.search(ended.out)
    assert found is not None
    return found[0], found[1]


def listed(gateway: Command) -> list[dict]:
    return json.loads(gateway("keys", "list", "--json").out)


def test_a_key_is_shown_once_with_a_curl_line_to_paste(gateway: Command, tmp_path: Path):
    ended = gateway("keys", "create", GATEWAY__SERVER__PORT="9123", GATEWAY__SERVER__HOST="::")
    (key,) = {match[0] for match in KEY.finditer(ended.out)}
    (line,) = [line for line in ended.out.splitlines() if line.strip().startswith("curl ")]
    words = shlex.split(line)
    assert words[1] == "http://[::1]:9123/v1/embeddings"
    assert f"Authorization: Bearer {key}" in words
    assert json.loads(words[words.index("-d") + 1])["model"] == "all-MiniLM-L6-v2"
    secret = key.rpartition("-")[2]
    later = gateway("keys", "list")
    assert secret not in later.out + later.err
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_keys_are_listed_for_people_and_for_programs(gateway: Command):
    assert listed(gateway) == []
    _, one = created(gateway, "--name", "search")
    _, other = created(gateway)
    assert [(row["id"], row["name"], row["revoked_at"]) for row in listed(gateway)] == [
        (one, "search", None),
        (other, "default", None),
    ]
    heading, first, second = gateway("keys", "list").out.splitlines()
    assert heading.split() == ["ID", "NAME", "STATE", "EXPIRES", "LIMITS"]
    assert first.split() == [one, "search", "active", "-", "-"]
    assert second.startswith(other)


def test_a_key_is_revoked_by_its_id_once(gateway: Command):
    _, public_id = created(gateway)
    assert gateway("keys", "revoke", public_id).out == f"revoked {public_id}\n"
    assert listed(gateway)[0]["state"] == "revoked"
    assert told(gateway("keys", "revoke", public_id)) == (
        f"gateway: No key in force has the id `{public_id}`: see `gateway keys list`"
    )


def test_if_none_makes_the_first_key_and_is_silent_afterwards(gateway: Command):
    _, public_id = created(gateway, "--if-none")
    again = gateway("keys", "create", "--if-none")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert [row["id"] for row in listed(gateway)] == [public_id]


def test_if_none_makes_another_key_once_all_are_revoked(gateway: Command):
    _, first = created(gateway)
    gateway("keys", "revoke", first)
    _, second = created(gateway, "--if-none")
    assert first != second


def test_if_none_is_silent_where_keys_are_configured(gateway: Command, tmp_path: Path):
    (tmp_path / "keys").write_text(PLAIN)
    for environ in ({"GATEWAY_API_KEYS": PLAIN}, {"GATEWAY_API_KEYS_FILE": str(tmp_path / "keys")}, {"GATEWAY__AUTH": "none"}):
        ended = gateway("keys", "create", "--if-none", **environ)
        assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert listed(gateway) == []


def test_where_nobody_needs_a_key_none_is_made(gateway: Command):
    assert "auth.mode is 'none'" in told(gateway("keys", "create", GATEWAY__AUTH="none"))


def test_the_data_folder_of_the_configuration_is_used(gateway: Command, tmp_path: Path):
    (tmp_path / "some.toml").write_text(f'[store]\ndata_dir = "{tmp_path / "elsewhere"}"')
    created(gateway, "--config", "some.toml", GATEWAY_DATA_DIR="")
    assert (tmp_path / "elsewhere" / "gateway.db").is_file()
    assert not (tmp_path / "data").exists()


def test_a_store_that_cannot_be_used_is_told_in_one_line(gateway: Command, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in told(gateway("keys", "create", GATEWAY_DATA_DIR=str(tmp_path / "file" / "data")))
    (tmp_path / "gateway.db").write_bytes(b"no database " * 100)
    assert "cannot be used" in told(gateway("keys", "list", GATEWAY_DATA_DIR=str(tmp_path)))
