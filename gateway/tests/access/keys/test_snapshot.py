"""Whose key is it? The keys of the environment, of the key file and of a real store, together."""

import pytest

from gateway.access.keys.key import ANONYMOUS, plain_key
from gateway.config import Secret
from gateway.errors import InvalidKey
from gateway.tests.access.conftest import add, opened

FROM_VARIABLE, FROM_FILE = "a-key-of-the-environment", "a-key-of-the-file-of-keys"


def test_callers_are_found_from_everywhere_keys_may_be(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEYS", f"{FROM_VARIABLE}, {FROM_VARIABLE[::-1]}")
    (tmp_path / "keys").write_text(f"# one\n{FROM_FILE}\n")
    text, key = add(store)
    keyring = opened(store, keys=Secret(env="SOME_KEYS"), keys_file=str(tmp_path / "keys"))
    assert keyring.caller(text).public_id == key.public_id
    for plain in (FROM_VARIABLE, FROM_VARIABLE[::-1], FROM_FILE):
        assert keyring.caller(plain).public_id == plain_key(plain).public_id
    assert not keyring.is_empty


def test_a_secret_file_may_hold_the_keys(store, tmp_path):
    (tmp_path / "secret").write_text(f"{FROM_FILE},{FROM_VARIABLE}\n")
    keyring = opened(store, keys=Secret(file=str(tmp_path / "secret")))
    assert keyring.caller(FROM_VARIABLE) != keyring.caller(FROM_FILE)


@pytest.mark.parametrize("wrong", ["", "sk-gw-", "somebody-elses-key-of-some-length", "é", FROM_VARIABLE + "x"])
def test_any_other_key_is_refused_and_shown_masked(store, wrong):
    with pytest.raises(InvalidKey, match=r"^Incorrect API key provided: .*\*\*\*.*\.$") as caught:
        opened(store).caller(wrong)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert len(wrong) < 10 or wrong not in caught.value.message


def test_the_secret_of_one_key_with_the_id_of_another_is_refused(store):
    (one, key), (other, _) = add(store), add(store)
    keyring = opened(store)
    assert keyring.caller(one).public_id == key.public_id
    with pytest.raises(InvalidKey):
        keyring.caller(f"sk-gw-{key.public_id}-{other.rpartition('-')[2]}")


def test_a_key_without_its_secret_is_refused(store):
    _, key = add(store)
    keyring = opened(store)
    for presented in (key.public_id, key.digest.hex(), f"sk-gw-{key.public_id}-", f"sk-gw-{key.public_id}-x"):
        with pytest.raises(InvalidKey):
            keyring.caller(presented)


async def test_without_a_store_everybody_is_the_same_caller():
    keyring = opened(None)
    await keyring.start()
    assert keyring.caller("anything") == keyring.caller("") == ANONYMOUS
    assert keyring.is_watching
    assert not keyring.is_empty
    await keyring.close()
