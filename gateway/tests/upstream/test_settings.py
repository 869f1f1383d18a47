"""What a row of an upstream may say, and what is never shown of it."""

import json

import pytest
import tomli_w
from click.testing import CliRunner

from gateway.cli import cli
from gateway.config import convert
from gateway.errors import ConfigurationError, OperatorError
from gateway.upstream.backend import UPSTREAM_BACKENDS
from gateway.upstream.openai import OPENAI
from gateway.upstream.settings import RULES, OllamaSettings, OpenAISettings, TEISettings

STRUCTS = {backend.name: backend.settings for backend in UPSTREAM_BACKENDS}
URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize("backend", STRUCTS)
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "url or urls is needed"),
        ({"url": URL, "urls": [URL]}, "url or urls is needed"),
        ({"urls": [URL, URL + "/"]}, "one is there twice"),
        ({"url": "127.0.0.1:8080"}, "url: it is not an address such as http://host:port"),
        ({"url": "ftp://host"}, "it is not an address"),
        ({"url": "http://host:port"}, "it is not an address"),
        ({"url": "http://[::1"}, "it is not an address"),
        ({"url": "http://user:hunter2@host"}, "a password does not belong into an address"),
        ({"url": "http://host/v1?key=hunter2"}, "an address has no query"),
        ({"url": "http://host/v1#hunter2"}, "an address has no query"),
        ({"url": URL, "proxy": "http://user:hunter2@proxy"}, "proxy: a password does not belong"),
        ({"url": URL, "key": "hunter2"}, "key: expected object"),
        ({"url": URL, "key_header": "a b"}, "key_header: expected str matching"),
        ({"url": URL, "max_inputs": 0}, "max_inputs: expected int >= 1"),
        ({"url": URL, "read_timeout_seconds": 0}, "read_timeout_seconds: expected float > 0"),
        ({"url": URL, "breaker_seconds": 31}, "breaker_seconds"),
        ({"url": URL, "long_input": "chunk"}, "long_input"),
        ({"url": URL, "modle": "x"}, "unknown setting"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_no_password_is_repeated(backend, settings, told):
    with pytest.raises(ConfigurationError, match=told) as refused:
        convert(settings, STRUCTS[backend], where="models[m]")
    assert "models[m]" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_what_the_gateway_says_itself_is_nobody_elses_to_say():
    with pytest.raises(ConfigurationError, match="extra_body: input, model is the gateway's own to set"):
        convert({"url": URL, "extra_body": {"model": "x", "input": "y"}}, OpenAISettings, where="models[m]")
    with pytest.raises(ConfigurationError, match=r"input_types\.query: dimensions is the gateway's own to set"):
        convert({"url": URL, "input_types": {"query": {"dimensions": 4}}}, OpenAISettings, where="models[m]")


@pytest.mark.parametrize(
    "fields",
    [
        {"output_dtype": "int8"},
        {"output_dtype": "float16"},
        {"embedding_type": "binary"},
        {"embedding_types": ["float", "int8"]},
        {"encoding_type": "ubinary"},
        {"embed_dtype": "bfloat16"},
        {"endianness": "big"},
    ],
)
def test_a_server_is_asked_for_no_type_that_would_be_read_as_float32(fields):
    [name] = fields
    with pytest.raises(ConfigurationError, match=f"extra_body: {name}: vectors are read as little-endian float32"):
        convert({"url": URL, "extra_body": fields}, OpenAISettings, where="models[m]")
    with pytest.raises(ConfigurationError, match=rf"input_types\.query: {name}: vectors are read as little-endian float32"):
        convert({"url": URL, "input_types": {"query": fields}}, OpenAISettings, where="models[m]")


@pytest.mark.parametrize(
    "fields",
    [
        {"output_dtype": "float", "output_dimension": 8},
        {"embedding_type": "base64"},
        {"embedding_types": ["float"]},
        {"embed_dtype": "float32", "endianness": "little"},
        {"output_dtype": None},
    ],
)
def test_a_server_may_be_asked_for_floats_by_name(fields):
    assert convert({"url": URL, "extra_body": fields}, OpenAISettings, where="models[m]").extra_body == fields


def test_the_rules_a_row_may_have_are_those_its_dialect_knows():
    from typing import get_args

    for backend in UPSTREAM_BACKENDS:
        hint = {"openai": OpenAISettings, "ollama": OllamaSettings, "tei": TEISettings}[backend.name].__annotations__["long_input"]
        assert get_args(get_args(hint)[0]) == RULES[backend.name] == backend.dialect.rules
    assert OPENAI.rules == ("error",)


ROW = {
    "name": "theirs",
    "backend": "openai",
    "url": "https://user:hunter2@host/v1",
    "key": {"env": "THEIR_KEY"},
    "key_header": "api-key",
    "headers": {"Authorization": "Basic hunter2", "X-Plain": "hunter2", "X-File": {"file": "/run/secrets/team"}},
    "proxy": "http://user:hunter2@proxy:3128",
    "query": {"api-version": "2024-10-21", "subscription-key": "hunter2"},
    "max_inputs": 16,
}


def test_config_check_looks_for_the_keys_of_other_servers(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(tomli_w.dumps({"models": [{"name": "m", "backend": "openai", "url": URL, "key": {"env": "NOT_THERE_AT_ALL"}}]}))
    checked = CliRunner().invoke(cli, ["config", "check", "--config", str(path)])
    assert isinstance(checked.exception, OperatorError)
    assert "models[m].key: the environment variable NOT_THERE_AT_ALL" in str(checked.exception)


def test_config_show_tells_where_secrets_are_and_hides_those_that_are_written_out(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(tomli_w.dumps({"models": [ROW]}))
    shown = CliRunner().invoke(cli, ["config", "show", "--config", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "hunter2" not in shown.output
    for told in (
        "THEIR_KEY",
        "/run/secrets/team",
        "2024-10-21",
        'key_header = "api-key"',
        "https://***@host/v1",
        "max_inputs = 16",
    ):
        assert told in shown.output


@pytest.mark.parametrize("backend", ["openai", "tei"])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dimensions": 4}, 'dimensions: not with task = "rerank"'),
        ({"prompts": {"query": "q: "}}, 'prompts: not with task = "rerank"'),
        ({"instruction_format": "Instruct: {instruction}\nQuery: "}, 'instruction_format: not with task = "rerank"'),
        ({"task": "score"}, "task: "),
    ],
)
def test_a_reranker_has_no_settings_of_vectors(backend, settings, told):
    with pytest.raises(ConfigurationError, match=told):
        convert({"url": URL, "task": "rerank", **settings}, STRUCTS[backend], where="models[m]")


def test_a_reranker_s_own_fields_are_the_gateway_s_and_ollama_has_none():
    with pytest.raises(ConfigurationError, match=r'input_types: not with task = "rerank"'):
        convert({"url": URL, "task": "rerank", "input_types": {"query": {}}}, OpenAISettings, where="models[m]")
    with pytest.raises(ConfigurationError, match="extra_body: documents, top_n is the gateway's own to set"):
        convert({"url": URL, "task": "rerank", "extra_body": {"top_n": 1, "documents": []}}, OpenAISettings, where="models[m]")
    convert({"url": URL, "task": "rerank", "extra_body": {"truncation": False}}, OpenAISettings, where="models[m]")
    with pytest.raises(ConfigurationError, match="unknown setting"):
        convert({"url": URL, "task": "rerank"}, OllamaSettings, where="models[m]")


def test_the_table_of_models_says_which_are_rerankers(tmp_path):
    path = tmp_path / "gateway.toml"
    rows = [{"name": "r", "backend": "openai", "url": URL, "task": "rerank"}, {"name": "e", "backend": "tei", "url": URL}]
    members = [{"backend": "openai", "url": url, "task": "rerank"} for url in (URL, "http://127.0.0.1:8081")]
    rows.append({"name": "g", "backend": "group", "members": members})
    path.write_text(tomli_w.dumps({"models": rows}))
    shown = CliRunner().invoke(cli, ["models", "--config", str(path), "--json"])
    assert shown.exit_code == 0, shown.output
    kinds = {each["name"]: each["kind"] for each in json.loads(shown.output)}
    assert kinds == {"r": "reranker", "e": "embedder", "g": "reranker"}
