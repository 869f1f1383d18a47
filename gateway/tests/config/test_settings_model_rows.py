"""[[models]]: what each row may hold, and who checks what."""

import json

import pytest

from gateway.build import BUILTIN_BACKENDS
from gateway.config import BUILTIN_MODELS, ModelRow, load
from gateway.embedding.registry import backend_of
from gateway.errors import ConfigurationError

BACKENDS = {backend.name: backend for backend in BUILTIN_BACKENDS}


def rows(*tables: object) -> tuple[ModelRow, ...]:
    return load(environ={"GATEWAY__MODELS": json.dumps(tables)}).models


def refusal(*tables: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        rows(*tables)
    return str(caught.value)


def test_without_a_row_the_builtin_model_is_served():
    assert load(environ={}).models == BUILTIN_MODELS


def test_rows_of_the_file_replace_the_builtin_one(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text('[[models]]\nname = "a"\nsource = "x/y"\n[[models]]\nname = "b"\naliases = ["c", "d"]\nbackend = "other"\n')
    first, second = load(path, environ={}).models
    assert first == ModelRow(name="a", settings={"source": "x/y"})
    assert second == ModelRow(name="b", aliases=("c", "d"), backend="other")


def test_rows_of_the_environment_replace_those_of_the_file(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text('[[models]]\nname = "a"\n')
    models = load(path, environ={"GATEWAY__MODELS": '[{"name": "b", "fingerprint": "f", "prompts": {"query": "q: "}}]'}).models
    assert models == (ModelRow(name="b", fingerprint="f", settings={"prompts": {"query": "q: "}}),)


@pytest.mark.parametrize("written", ['"all-MiniLM-L6-v2"', '{"name": "a"}', '["a"]', "[[]]", "null", "5"])
def test_what_is_no_list_of_tables_is_refused(written):
    with pytest.raises(ConfigurationError, match=r"^models: expected a list of tables, \[\[models\]\]$"):
        load(environ={"GATEWAY__MODELS": written})


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\nb", "a\x00", "\u202e"])
def test_a_name_that_cannot_be_a_label_is_refused(name):
    assert "a model's name is 1 to 200 printable characters" in refusal({"name": name})
    assert "a model's name is 1 to 200 printable characters" in refusal({"name": "a", "aliases": [name]})


@pytest.mark.parametrize("name", ["x", "x" * 200, "org/model:v1", "モデル"])
def test_other_names_are_accepted(name):
    assert rows({"name": name})[0].name == name


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"source": "x"}, "name"),
        ({"name": 5}, "name: expected str, got int"),
        ({"name": "a", "aliases": "b"}, "models[a].aliases: expected array, got str"),
        ({"name": "a", "aliases": [1]}, "models[a].aliases[0]: expected str, got int"),
        ({"name": "a", "backend": ["b"]}, "models[a].backend: expected str, got array"),
        ({"name": "a", "fingerprint": 1}, "models[a].fingerprint: expected str"),
    ],
)
def test_a_wrong_value_in_a_row_is_refused_by_the_rows_name(row, words):
    assert words in refusal(row)


def test_a_row_without_a_name_is_known_by_its_number():
    assert refusal({"name": "a"}, {"source": "x"}).startswith("models[1]")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "x", "sorce": "y"}, "unknown setting 'models[a].sorce': did you mean 'source'?"),
        ({"source": "x", "longinput": "end"}, "unknown setting 'models[a].longinput': did you mean 'long_input'?"),
        ({"source": "x", "long_input": "cut"}, "models[a].long_input: "),
        ({"source": "x", "device": "gpu"}, "models[a].device: "),
        ({"source": ""}, "models[a].source: "),
        ({"source": "x", "prompts": {"": "p"}}, "models[a].prompts"),
        ({}, "source"),
    ],
)
def test_a_row_is_checked_by_its_backend(settings, words):
    (row,) = rows({"name": "a", **settings})
    with pytest.raises(ConfigurationError) as caught:
        backend_of(row, BACKENDS)
    assert words in str(caught.value)


def test_an_unknown_backend_is_told_with_those_there_are():
    (row,) = rows({"name": "a", "backend": "sentence_transformers"})
    with pytest.raises(
        ConfigurationError, match=r"no backend is named .*; there are sentence-transformers, openai, ollama, tei, ray, group$"
    ):
        backend_of(row, BACKENDS)


def test_the_builtin_row_is_right_by_its_backend():
    backend, settings = backend_of(BUILTIN_MODELS[0], BACKENDS)
    assert (backend.name, settings.download) == ("sentence-transformers", False)
