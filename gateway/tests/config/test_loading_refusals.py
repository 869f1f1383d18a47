"""What is unknown, wrong or at odds is refused by its name, with the nearest one there is."""

from typing import get_args, get_type_hints

import msgspec
import pytest

from gateway.config import convert, load
from gateway.config.loading import SECTIONS, build_config, merge
from gateway.errors import ConfigurationError


def refusal(**tables: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build_config(merge(tables, {}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal_of_environment(variable: str, value: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={variable: value})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"sever": {}}, "unknown setting 'sever': did you mean 'server'?"),
        ({"model": []}, "unknown setting 'model': did you mean 'models'?"),
        ({"server": {"prot": 1}}, "unknown setting 'server.prot': did you mean 'port'?"),
        ({"limits": {"max_input_token": 1}}, "unknown setting 'limits.max_input_token': did you mean 'max_input_tokens'?"),
    ],
)
def test_an_unknown_setting_of_the_file_is_told_with_the_nearest(tables, message):
    assert refusal(**tables) == message


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("GATEWAY__SERVER__PROT", "unknown setting 'server.prot': did you mean 'port'?"),
        ("GATEWAY__SEVER__PORT", "unknown setting 'sever': did you mean 'server'?"),
        ("GATEWAY__LOG__LEVELS", "unknown setting 'log.levels': did you mean 'level'?"),
    ],
)
def test_an_unknown_setting_of_the_environment_is_told_with_the_nearest(variable, message):
    assert refusal_of_environment(variable, "1") == message


@pytest.mark.parametrize(
    "variable", ["GATEWAY__", "GATEWAY__SERVER", "GATEWAY__SERVER__", "GATEWAY__SERVER__PORT__X", "GATEWAY__MODELS__X"]
)
def test_an_incomplete_name_in_the_environment_is_refused(variable):
    assert "unknown setting" in refusal_of_environment(variable, "1")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_name_like_no_other_is_told_with_all_there_are(section):
    message = refusal(**{section: {"zzzzzzzz": 1}})
    for field in msgspec.structs.fields(SECTIONS[section]):
        assert field.name in message


@pytest.mark.parametrize(
    ("section", "setting", "value", "words"),
    [
        ("server", "port", "8000", "expected int, got str"),
        ("server", "port", 65536, "<= 65535"),
        ("server", "port", -1, ">= 0"),
        ("server", "port", True, "expected int, got bool"),
        ("server", "host", 5, "expected str | array, got int"),
        ("server", "max_body_bytes", 0, ">= 1"),
        ("server", "body_timeout_seconds", 0, "> 0"),
        ("server", "request_timeout_seconds", -1, "> 0"),
        ("auth", "mode", "open", "invalid enum value 'open'"),
        ("log", "level", "verbose", "invalid enum value 'verbose'"),
        ("limits", "max_input_tokens", 1.5, "expected int, got float"),
        ("engine", "threads", -1, ">= 0"),
        ("metrics", "port", [], "expected int, got array"),
        ("store", "data_dir", {"env": "X"}, "expected str"),
    ],
)
def test_a_wrong_value_is_refused_by_the_settings_name(section, setting, value, words):
    message = refusal(**{section: {setting: value}})
    assert message.startswith(f"{section}.{setting}: ")
    assert words in message.lower().replace("`", "")


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("GATEWAY__SERVER__PORT", "tcp://10.0.0.1:8000", "server.port"),
        ("GATEWAY__SERVER__PORT", "65536", "server.port"),
        ("GATEWAY__SERVER__PORT", "", "server.port"),
        ("GATEWAY__ENGINE__WARMUP_SECONDS", "soon", "engine.warmup_seconds"),
        ("GATEWAY__LOG__FORMAT", "xml", "log.format"),
        ("GATEWAY__AUTH__KEYS", "sk-plain-key-in-the-environment", "auth.keys"),
    ],
)
def test_a_wrong_value_in_the_environment_is_refused_by_both_its_names(variable, value, setting):
    message = refusal_of_environment(variable, value)
    assert variable in message
    assert setting in message


@pytest.mark.parametrize("variable", ["GATEWAY__AUTH", "GATEWAY__AUTH__MODE"])
def test_a_value_that_is_none_of_the_choices_is_told_with_all_of_them(variable):
    choices = ", ".join(map(repr, get_args(get_type_hints(SECTIONS["auth"])["mode"])))
    assert refusal_of_environment(variable, "off").removesuffix(")").endswith(f"Invalid enum value 'off': choose from {choices}")


@pytest.mark.parametrize("variable", ["GATEWAY__MODELS", "GATEWAY__AUTH__KEYS"])
def test_broken_json_in_the_environment_is_named_and_not_quoted(variable):
    message = refusal_of_environment(variable, '[{"api_key": "sk-secret"')
    assert message == f"{variable} is not valid JSON"


@pytest.mark.parametrize("variable", ["GATEWAY__MODELS", "GATEWAY__AUTH__KEYS"])
def test_bytes_in_the_environment_that_are_no_utf8_are_refused_by_the_variables_name(variable):
    assert variable in refusal_of_environment(variable, '[{"name": "\udcff"}]')  # as os.environ holds the byte ff


def test_a_text_in_the_environment_may_begin_like_json():
    assert load(environ={"GATEWAY__AUTH__KEYS_FILE": "[private] keys.txt"}).auth.keys_file == "[private] keys.txt"


DURATIONS = [
    (name, field.name)
    for name, section in SECTIONS.items()
    for field in msgspec.structs.fields(section)
    if "_seconds" in field.name
]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
@pytest.mark.parametrize(("section", "setting"), DURATIONS)
def test_a_duration_that_is_not_finite_is_refused(section, setting, number):
    assert refusal(**{section: {setting: number}}).startswith(f"{section}.{setting}: ")


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"engine": {"max_queue_tokens": 1000}}, "engine.max_queue_tokens must be at least limits.max_request_tokens"),
        ({"limits": {"max_request_tokens": 2_000_000}}, "engine.max_queue_tokens must be at least limits.max_request_tokens"),
        ({"server": {"max_buffered_bytes": 1}}, "max_buffered_bytes must be at least max_body_bytes"),
        ({"auth": {"mode": "none", "keys_file": "keys"}}, "auth.mode is 'none', yet keys are configured"),
        ({"auth": {"mode": "none", "keys": {"env": "KEYS"}}}, "auth.mode is 'none', yet keys are configured"),
        ({"models": []}, "at least one model is needed"),
    ],
)
def test_settings_at_odds_with_each_other_are_refused(tables, words):
    assert words in refusal(**tables)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_no_table_is_refused(section):
    assert refusal(**{section: [1]}) == f"{section}: expected a table, [{section}]"


def test_a_table_is_checked_against_any_struct():
    with pytest.raises(ConfigurationError, match=r"^here\.port: "):
        convert({"port": "x"}, SECTIONS["server"], where="here")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[limits]\nrequests_burst = 5", "limits: requests_burst is part of a limit: set requests_per_minute too"),
        ("[limits]\ntokens_per_minute = 0", "limits.tokens_per_minute"),
        ('[limits]\nredis_url = "redis://:secret@cache"', "limits.redis_url"),
        ('[limits]\non_limiter_failure = "maybe"', "'allow', 'deny'"),
        ('[server]\ntrusted_proxies = ["everybody"]', "everybody"),
    ],
)
def test_limits_and_proxies_that_mean_nothing_are_refused(tmp_path, text, told):
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ={})
    assert told in str(caught.value)
    assert "secret@" not in str(caught.value)
