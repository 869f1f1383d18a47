"""Keys and other secrets are named in the configuration, and never written into it."""

import pytest

from gateway.config import Secret, load, secret_value
from gateway.errors import ConfigurationError


def loaded(tmp_path, text: str, **environ: str):
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return load(path, environ=environ)


def test_auth_none_at_the_top_of_the_file_is_its_mode(tmp_path):
    assert loaded(tmp_path, 'auth = "none"').auth.mode == "none"


def test_auth_none_in_the_environment_is_its_mode(tmp_path):
    assert loaded(tmp_path, "", GATEWAY__AUTH="none").auth.mode == "none"
    assert loaded(tmp_path, 'auth = "none"', GATEWAY__AUTH="keys").auth.mode == "keys"
    assert loaded(tmp_path, 'auth = "none"', GATEWAY__AUTH__MODE="keys").auth.mode == "keys"
    assert loaded(tmp_path, "[auth]\nmax_snapshot_age_seconds = 7", GATEWAY__AUTH="none").auth.max_snapshot_age_seconds == 7


@pytest.mark.parametrize("written", ['auth = "off"', 'auth = ""', '[auth]\nmode = "None"'])
def test_another_word_for_auth_is_refused(tmp_path, written):
    with pytest.raises(ConfigurationError, match=r"^auth\.mode: "):
        loaded(tmp_path, written)


@pytest.mark.parametrize("written", ['{ env = "NAME" }', '{ file = "PATH" }'])
def test_a_secret_is_one_of_two_places(tmp_path, written):
    secret = loaded(tmp_path, f"[auth]\nkeys = {written}").auth.keys
    assert secret in {Secret(env="NAME"), Secret(file="PATH")}


@pytest.mark.parametrize("written", ["{}", '{ env = "A", file = "B" }'])
def test_a_secret_of_both_places_or_none_is_refused(tmp_path, written):
    with pytest.raises(ConfigurationError, match=r"^auth\.keys: a secret is written \{ env = "):
        loaded(tmp_path, f"[auth]\nkeys = {written}")


def test_a_secret_written_out_is_refused_and_not_quoted(tmp_path):
    with pytest.raises(ConfigurationError, match=r"^auth\.keys: ") as caught:
        loaded(tmp_path, '[auth]\nkeys = "sk-gw-written-out-in-the-file"')
    assert "written-out" not in str(caught.value)


def test_a_secret_of_an_unknown_place_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"^auth\.keys: .*`?vault`?"):
        loaded(tmp_path, '[auth]\nkeys = { vault = "x" }')


def test_the_environments_secret_replaces_the_files(tmp_path):
    config = loaded(tmp_path, '[auth]\nkeys = { file = "PATH" }', GATEWAY__AUTH__KEYS='{"env": "NAME"}')
    assert config.auth.keys == Secret(env="NAME")


def test_a_secret_is_read_from_its_variable(monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "hidden")
    assert secret_value(Secret(env="SOME_SECRET")) == "hidden"


def test_a_secret_is_read_from_its_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("hidden\n", encoding="utf-8")
    assert secret_value(Secret(file=str(path))) == "hidden\n"


def test_a_secret_whose_variable_is_not_set_is_named():
    with pytest.raises(ConfigurationError, match="the environment variable NO_SUCH_SECRET, named as a secret, is not set"):
        secret_value(Secret(env="NO_SUCH_SECRET"))


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"\xff\xfa", "it is not UTF-8 text")])
def test_a_secret_file_that_cannot_be_read_is_named(tmp_path, content, words):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"the secret file {path} cannot be read: {words}"):
        secret_value(Secret(file=str(path)))
