"""Any file and any environment give a configuration or a ConfigurationError: never another exception."""

import json

import msgspec
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, load
from gateway.config.loading import SECTIONS
from gateway.errors import ConfigurationError

names = st.sampled_from([*SECTIONS, "models", "port", "name", "keys", "env", "file", "mode", "aliases", "backend"]) | st.text(
    max_size=5
)
scalars = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
toml_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
settings = {
    name: st.dictionaries(st.sampled_from([field.name for field in msgspec.structs.fields(section)]), toml_values, max_size=2)
    for name, section in SECTIONS.items()
}
rows = st.lists(st.fixed_dictionaries({"name": scalars}, optional={"aliases": toml_values, "backend": toml_values}), max_size=2)


@given(tables=st.fixed_dictionaries({}, optional={**settings, "models": rows | toml_values}) | st.dictionaries(names, toml_values))
def test_any_toml_is_a_configuration_or_refused(tmp_path_factory, tables):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(tomli_w.dumps(tables).encode("utf-8", errors="replace"))
    check(path, {})


@given(section=st.sampled_from([*SECTIONS, "models", ""]), setting=names, value=toml_values.map(json.dumps) | st.text())
def test_any_environment_is_a_configuration_or_refused(section, setting, value):
    check(None, {f"GATEWAY__{section}__{setting}".upper(): value})
    check(None, {f"GATEWAY__{section}".upper(): value})


def check(path: object, environ: dict[str, str]) -> None:
    try:
        outcome = load(path, environ=environ)
    except ConfigurationError as error:
        outcome = error
    assert isinstance(outcome, Config) or str(outcome)
