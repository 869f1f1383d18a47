"""The model of a request that names none, by kind."""

import pytest

from gateway.access.keys.key import Caller
from gateway.api.default_model import default_model
from gateway.config import ModelRow, ServerSettings
from gateway.embedding.catalog import Catalog
from gateway.embedding.model import Model
from gateway.errors import ConfigurationError
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeReranker

ANYBODY = Caller("k")


async def catalog_of(*, ready=(), others=()):
    """A catalog of models, by name and embedder; `others` have (name, embedder, load)."""
    models = [Model(ModelRow(name=name, backend="fake"), embedder) for name, embedder in ready]
    for model in models:
        await model.start()
    waiting = [Model(ModelRow(name=name, backend="fake", load=load), embedder) for name, embedder, load in others]
    return Catalog([*models, *waiting])


def default_of(catalog, kind="reranker", caller=ANYBODY, **settings):
    return default_model(catalog, ServerSettings(**settings), kind, caller)


async def test_the_only_model_of_a_kind_is_its_default():
    catalog = await catalog_of(ready=[("e", FakeEmbedder()), ("r", FakeReranker())])
    assert default_of(catalog) == "r"
    assert default_of(catalog, "embedder") == "e"
    assert default_of(catalog, "sparse_encoder") is None


async def test_of_two_there_is_no_default_unless_the_settings_name_one():
    catalog = await catalog_of(ready=[("r", FakeReranker()), ("s", FakeReranker()), ("e", FakeEmbedder()), ("f", FakeEmbedder())])
    assert default_of(catalog) is None
    assert default_of(catalog, default_reranker="s") == "s"
    assert default_of(catalog, default_model="f") is None
    assert default_of(catalog, "embedder", default_model="f", default_reranker="s") == "f"


async def test_models_that_the_key_may_not_use_are_not_counted():
    catalog = await catalog_of(ready=[("r", FakeReranker()), ("s", FakeReranker())])
    assert default_of(catalog, caller=Caller("k", models=("s",))) == "s"
    assert default_of(catalog, caller=Caller("k", models=("none",))) is None


async def test_while_one_of_several_loads_the_answer_is_to_come_back():
    """Whoever asks for it is answered 503, by the name of what loads."""
    catalog = await catalog_of(ready=[("r", FakeReranker())], others=[("s", FakeReranker(), "start")])
    assert default_of(catalog) == "s"
    alone = await catalog_of(others=[("s", FakeReranker(), "start")])
    assert default_of(alone) == "s"


async def test_one_that_waits_for_its_first_request_counts_if_no_other_is_of_the_kind():
    catalog = await catalog_of(ready=[("r", FakeReranker())], others=[("s", FakeReranker(), "first_use")])
    assert default_of(catalog) == "r"
    assert default_of(catalog, "embedder") == "s"  # it may be one: it is loaded to find out
    two = await catalog_of(others=[("s", FakeReranker(), "first_use"), ("t", FakeReranker(), "first_use")])
    assert default_of(two) is None


def test_a_default_reranker_without_a_row_is_refused(make):
    with pytest.raises(ConfigurationError, match=r"server.default_reranker: no model has the name or alias 'r'"):
        make(server=ServerSettings(default_reranker="r"), backends=[FakeBackend(m=FakeEmbedder())])
