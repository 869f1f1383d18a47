"""Flag > environment > file > default."""

import json

import pytest

from gateway.config import Config, Secret, load
from gateway.config.loading import EFFECTIVE_SHORT_NAMES
from gateway.errors import ConfigurationError

FILE, ENVIRONMENT, FLAG = 8001, 8002, 8003


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text(f"[server]\nport = {FILE}\nmax_body_bytes = 1000\n")
    return path


@pytest.mark.parametrize(
    ("has_file", "environ", "flags", "port"),
    [
        (False, {}, {}, 8000),
        (True, {}, {}, FILE),
        (False, {"GATEWAY__SERVER__PORT": str(ENVIRONMENT)}, {}, ENVIRONMENT),
        (True, {"GATEWAY__SERVER__PORT": str(ENVIRONMENT)}, {}, ENVIRONMENT),
        (True, {}, {("server", "port"): FLAG}, FLAG),
        (True, {"GATEWAY__SERVER__PORT": str(ENVIRONMENT)}, {("server", "port"): FLAG}, FLAG),
    ],
)
def test_a_flag_goes_before_the_environment_and_that_before_the_file(file, has_file, environ, flags, port):
    environ = {**environ, **({"GATEWAY_CONFIG": str(file)} if has_file else {})}
    assert load(environ=environ, flags=flags).server.port == port


def test_what_goes_before_replaces_one_setting_and_not_its_table(file):
    config = load(file, environ={"GATEWAY__SERVER__PORT": "1"}, flags={("server", "host"): "::1"})
    assert (config.server.host, config.server.port, config.server.max_body_bytes) == ("::1", 1, 1000)


def test_a_named_file_goes_before_the_one_of_the_environment(file):
    assert load(file, environ={"GATEWAY_CONFIG": "/nowhere/else.toml"}).server.port == FILE


def test_with_nothing_at_all_every_setting_has_its_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(environ={}) == Config()


def test_gateway_toml_in_the_current_folder_is_read(tmp_path, monkeypatch, file):
    file.rename(tmp_path / "gateway.toml")
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).server.port == FILE


@pytest.mark.parametrize("path", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, path):
    with pytest.raises(ConfigurationError, match=r"^the configuration file .* cannot be read: "):
        load(tmp_path / path, environ={})
    with pytest.raises(ConfigurationError, match=r"^the configuration file .* cannot be read: "):
        load(environ={"GATEWAY_CONFIG": str(tmp_path / path)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port = ", "is not valid TOML"),
        (b"[server]\nport = 1\nport = 2", "is not valid TOML"),
        (b"# \xff", "it is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ={})
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_short_name_sets_its_setting():
    environ = {"GATEWAY_DATA_DIR": "data", "GATEWAY_API_KEYS": "k" * 24, "GATEWAY_API_KEYS_FILE": "keys.txt"}
    config = load(environ=environ)
    assert config.store.data_dir == "data"
    assert config.auth.keys is not None
    assert config.auth.keys.env == "GATEWAY_API_KEYS"
    assert config.auth.keys_file == "keys.txt"
    assert set(environ) == set(EFFECTIVE_SHORT_NAMES)


@pytest.mark.parametrize("name", EFFECTIVE_SHORT_NAMES)
def test_an_empty_short_name_is_not_set(name):
    assert load(environ={name: ""}) == load(environ={})


def test_the_long_name_goes_before_the_short_one():
    assert load(environ={"GATEWAY_DATA_DIR": "short", "GATEWAY__STORE__DATA_DIR": "long"}).store.data_dir == "long"


def test_what_kubernetes_injects_for_a_service_named_gateway_is_ignored():
    injected = {
        "GATEWAY_PORT": "tcp://10.0.0.1:8000",
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "8000",
        "GATEWAY_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=injected) == load(environ={})


@pytest.mark.parametrize(
    ("variable", "right"),
    [
        ("GATEWAY_SERVER_PORT", "GATEWAY__SERVER__PORT"),
        ("GATEWAY_SERVER__PORT", "GATEWAY__SERVER__PORT"),
        ("gateway_server_port", "GATEWAY__SERVER__PORT"),
        ("GATEWAY_CACHE_MAX_BYTES", "GATEWAY__CACHE__MAX_BYTES"),
        ("GATEWAY_AUTH", "GATEWAY__AUTH"),
        ("GATEWAY_MODELS", "GATEWAY__MODELS"),
    ],
)
def test_a_name_with_single_underscores_is_refused_and_not_passed_over(variable, right):
    with pytest.raises(ConfigurationError, match=f"{variable} is not read: did you mean {right}"):
        load(environ={variable: "1"})


@pytest.mark.parametrize("service", ["GATEWAY", "GATEWAY_SERVER", "GATEWAY_METRICS"])
def test_what_kubernetes_injects_for_any_service_is_no_misspelt_setting(service):
    address = "tcp://10.0.0.1:8000"
    links = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8000", "PORT": address, "PORT_8000_TCP": address}
    assert load(environ={f"{service}_{name}": value for name, value in links.items()}) == Config()


def test_models_of_flags_replace_the_configured_ones():
    rows = [{"name": "bge", "source": "BAAI/bge-small-en"}, {"name": "my-model", "aliases": ["mine"], "source": "./my-model"}]
    config = load(environ={"GATEWAY__MODELS": '[{"name": "other"}]'}, flags={("models", ""): rows})
    assert [row.names for row in config.models] == [("bge",), ("my-model", "mine")]
    assert [row.settings for row in config.models] == [{"source": "BAAI/bge-small-en"}, {"source": "./my-model"}]
    assert {row.backend for row in config.models} == {"sentence-transformers"}


def test_a_secret_s_place_in_the_environment_is_a_place_and_not_the_secret_itself():
    """As the shared manifests name the database: a file that the orchestrator mounts."""
    for setting, value in (("STORE__DATABASE_URL", "database_url"), ("LIMITS__REDIS_URL", "redis_url")):
        section = setting.partition("__")[0].lower()
        for place in ({"file": "/run/secrets/url"}, {"env": "SOME_URL"}):
            settings = load(environ={f"GATEWAY__{setting}": json.dumps(place)})
            assert getattr(getattr(settings, section), value) == Secret(**place)
    with pytest.raises(ConfigurationError, match="not valid JSON"):
        load(environ={"GATEWAY__STORE__DATABASE_URL": "{file"})
