"""The example configurations are right, as far as the backends they name are here."""

from pathlib import Path

import pytest

from gateway.build import BUILTIN_BACKENDS, refuse_misread_names
from gateway.cli.source_row import READY
from gateway.config import load
from gateway.embedding.catalog import Catalog, Model
from gateway.embedding.registry import backend_of
from gateway.testing.fakes import FakeEmbedder

EXAMPLES = sorted((Path(__file__).parents[3] / "deploy" / "examples").glob("*.toml"))
BACKENDS = {backend.name: backend for backend in BUILTIN_BACKENDS}


def test_there_are_examples():
    assert "many-models.toml" in [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_an_example_is_a_right_configuration(path):
    config = load(path, environ={})
    catalog = Catalog([Model(row, FakeEmbedder()) for row in config.models])
    assert config.server.default_model is None or config.server.default_model in catalog.by_name
    known = [row for row in config.models if row.backend in BACKENDS]
    assert known
    for row in known:
        refuse_misread_names(row)
        backend_of(row, BACKENDS)


def test_the_row_that_a_command_adds_is_the_examples():
    [row] = [row for row in load(EXAMPLES[0].with_name("many-models.toml"), environ={}).models if "multilingual" in row.aliases]
    added = READY["multilingual"].row
    assert (row.name, row.aliases, row.settings) == (added.name, added.aliases, added.settings)
