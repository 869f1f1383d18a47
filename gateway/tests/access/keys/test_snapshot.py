"""Whose key is it? The keys of the environment, of the key file and of a real store, together."""

import pytest

from gateway.access.keys.key import plain_key
from gateway.config import Secret
from gateway.errors import InvalidKey
from gateway.tests.access.conftest import add, opened

FROM_VARIABLE, FROM_FILE = "a-key-of-the-environment", "a-key-of-the-file-of-keys"


def test_callers_are_found_from_everywhere_keys_may_be(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEYS", f"{FROM_VARIABLE}, {FROM_VARIABLE[::-1]}")
    (tmp_path / "keys").write_text(f"# one\n{FROM_FILE}\n")
    text, key = add(store)
    key_snapshot = opened(store, keys=Secret(env="SOME_KEYS"), keys_file=str(tmp_path / "keys"))
    assert key_snapshot.caller(text).public_id == key.public_id
    for plain in (FROM_VARIABLE, FROM_VARIABLE[::-1], FROM_FILE):
        assert key_snapshot.caller(plain).public_id == plain_key(plain).public_id
    assert not key_snapshot.is_empty


def test_a_secret_file_may_hold_the_keys(store, tmp_path):
    (tmp_path / "secret").write_text(f"{FROM_FILE},{FROM_VARIABLE}\n")
    key_snapshot = opened(store, keys=Secret(file=str(tmp_path / "secret")))
    assert key_snapshot.caller(FROM_VARIABLE) != key_snapshot.caller(FROM_FILE)


@pytest.mark.parametrize("wrong", ["", "sk-gw-", "somebody-elses-key-of-some-length", "é", FROM_VARIABLE + "x"])
def test_any_other_key_is_refused_and_shown_masked(store, wrong):
    with pytest.raises(InvalidKey, match=r"^Incorrect API key provided: .*\*\*\*.*\.$") as caught:
        opened(store).caller(wrong)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert len(wrong) < 10 or wrong not in caught.value.message


def test_the_secret_of_one_key_with_the_id_of_another_is_refused(store):
    (one, key), (other, _) = add(store), add(store)
    key_snapshot = opened(store)
    assert key_snapshot.caller(one).public_id == key.public_id
    with pytest.raises(InvalidKey):
        key_snapshot.caller(f"sk-gw-{key.public_id}-{other.rpartition('-')[2]}")


def test_a_key_without_its_secret_is_refused(store):
    _, key = add(store)
    key_snapshot = opened(store)
    for presented in (key.public_id, key.digest.hex(), f"sk-gw-{key.public_id}-", f"sk-gw-{key.public_id}-x"):
        with pytest.raises(InvalidKey):
            key_snapshot.caller(presented)
