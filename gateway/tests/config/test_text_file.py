"""Files as editors write them: byte order marks are passed over, UTF-16 is told; keys in quotes are refused, by name alone."""

import pytest

from gateway.access.keys.snapshot import configured_keys
from gateway.config import AuthSettings, Secret, load, secret_value
from gateway.errors import ConfigurationError

MARK = b"\xef\xbb\xbf"
KEYS = ["first-key-of-more-than-24-characters", "second-key-of-more-than-24-characters"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_configuration_with_a_byte_order_mark_is_read(tmp_path, end):
    (tmp_path / "gateway.toml").write_bytes(MARK + b"[server]" + end + b"port = 8123" + end)
    assert load(tmp_path / "gateway.toml", environ={}).server.port == 8123


def test_a_configuration_in_utf_16_is_told_so(tmp_path):
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "gateway.toml").write_text("[server]\nport = 8123\n", encoding=encoding)
        with pytest.raises(ConfigurationError, match=r"gateway\.toml cannot be read: it is UTF-16 text: save it as UTF-8"):
            load(tmp_path / "gateway.toml", environ={})
    (tmp_path / "gateway.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match="it is not UTF-8 text, at byte 5"):
        load(tmp_path / "gateway.toml", environ={})


def keys_of(tmp_path, content, *, is_file):
    path = tmp_path / "keys"
    path.write_bytes(content)
    return configured_keys(AuthSettings(keys_file=str(path)) if is_file else AuthSettings(keys=Secret(file=str(path))))


@pytest.mark.parametrize("is_file", [True, False], ids=["keys_file", "secret"])
def test_a_key_behind_a_byte_order_mark_is_that_key(tmp_path, is_file):
    plain = keys_of(tmp_path, KEYS[0].encode(), is_file=is_file)
    assert keys_of(tmp_path, MARK + KEYS[0].encode() + b"\r\n", is_file=is_file) == plain
    with pytest.raises(ConfigurationError, match="it is UTF-16 text: save it as UTF-8"):
        keys_of(tmp_path, KEYS[0].encode("utf-16"), is_file=is_file)


@pytest.mark.parametrize("is_file", [True, False], ids=["keys_file", "secret"])
@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        (f'"{KEYS[0]}"', 1, "quotes"),
        (f"'{KEYS[0]}'\n'{KEYS[1]}'", 1, "quotes"),
        (f"{KEYS[0]}\n\u201c{KEYS[1]}\u201d", 2, "quote"),
        (f"{KEYS[0]}\n{KEYS[1]}'", 2, "quote"),
        (f"{KEYS[0]};{KEYS[1]}", 1, "';'"),
        (f"{KEYS[0]}; {KEYS[1]}", 1, "';'"),
        (f'["{KEYS[0]}", "{KEYS[1]}"]', 1, "quote"),
    ],
)
def test_keys_in_quotes_or_with_semicolons_are_refused_by_name(tmp_path, text, number, words, is_file):
    with pytest.raises(ConfigurationError) as refused:
        keys_of(tmp_path, text.encode(), is_file=is_file)
    message = str(refused.value)
    assert words in message
    assert str(tmp_path / "keys") in message
    assert f"key {number} of" in message or not is_file
    assert not any(key in message for key in KEYS)


@pytest.mark.parametrize("value", [f'"{KEYS[0]}"', f" '{KEYS[0]},{KEYS[1]}'\n"])
def test_a_variable_in_quotes_is_refused_by_its_name(monkeypatch, value):
    monkeypatch.setenv("UPSTREAM_KEY", value)
    with pytest.raises(ConfigurationError, match="the environment variable UPSTREAM_KEY holds a secret in quotes") as refused:
        secret_value(Secret(env="UPSTREAM_KEY"))
    assert KEYS[0] not in str(refused.value)
    monkeypatch.setenv("UPSTREAM_KEY", "\ufeffsecret")
    assert secret_value(Secret(env="UPSTREAM_KEY")) == "secret"
