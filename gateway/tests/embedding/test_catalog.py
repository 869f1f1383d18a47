"""Names to embedders: aliases, models that load, and vectors that are not the pinned ones."""

import time

import pytest

from gateway.config import ModelRow
from gateway.embedding.catalog import Catalog, Model
from gateway.errors import ConfigurationError, ModelLoading, ModelUnavailable, OperatorError, UnknownModel
from gateway.testing.fakes import FakeEmbedder

FOUND = "f" * 24 + ".fake-float32"


def model(name: str, *aliases: str, **settings) -> Model:
    return Model(ModelRow(name=name, aliases=aliases, fingerprint=settings.pop("pinned", None)), FakeEmbedder(**settings))


async def serving(catalog: Catalog, name: str, *, seconds: float = 30) -> None:
    await catalog.ensure_ready(catalog.find(name), name, deadline=time.monotonic() + seconds)


async def test_a_model_is_found_by_its_name_and_by_every_alias():
    small, large = model("small", "org/small", "text-embedding-3-small"), model("large")
    catalog = Catalog([small, large])
    for each in catalog.models:
        await each.start()
    assert [catalog.find(name) for name in ("small", "org/small", "text-embedding-3-small")] == [small] * 3
    assert catalog.find("large") is large
    assert list(catalog) == [("small", small), ("org/small", small), ("text-embedding-3-small", small), ("large", large)]


@pytest.mark.parametrize("name", ["other", "", "SMALL", "small ", "org"])
def test_an_unknown_name_is_refused_as_the_contract_says(name):
    with pytest.raises(UnknownModel) as caught:
        Catalog([model("small", "org/small")]).find(name)
    error = caught.value
    assert (error.status, error.type, error.param, error.code) == (404, "invalid_request_error", "model", "model_not_found")
    assert error.message == f"The model `{name}` does not exist or you do not have access to it."


def test_a_long_unknown_name_is_not_quoted_whole():
    with pytest.raises(UnknownModel) as caught:
        Catalog([model("small")]).find("x" * 100_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "models",
    [
        lambda: [model("a"), model("a")],
        lambda: [model("a"), model("b", "a")],
        lambda: [model("a", "c"), model("b", "c")],
        lambda: [model("a", "a")],
        lambda: [model("a", "b", "b")],
    ],
)
def test_a_name_used_twice_is_refused(models):
    with pytest.raises(ConfigurationError, match=r"^models\[.\]: the name '.' is used twice$"):
        Catalog(models())


async def test_a_model_that_is_not_ready_says_so_and_the_others_serve():
    catalog = Catalog([model("ready"), model("loading")])
    await catalog.by_name["ready"].start()
    await serving(catalog, "ready")
    assert not catalog.ready
    with pytest.raises(ModelLoading) as caught:
        await serving(catalog, "loading")
    assert (caught.value.status, caught.value.type, caught.value.code) == (503, "server_error", "model_loading")
    assert 1 <= int(caught.value.headers()["Retry-After"]) <= 59
    await catalog.by_name["loading"].start()
    assert catalog.ready


async def test_a_model_that_failed_is_not_served_and_not_called_loading():
    failing = model("failing", fails_with="its weights are missing")
    with pytest.raises(OperatorError, match="its weights are missing"):
        await failing.start()
    catalog = Catalog([failing])
    assert not catalog.ready
    with pytest.raises(ModelUnavailable, match="This model has failed") as caught:
        await serving(catalog, "failing")
    assert "weights" not in caught.value.message
    assert caught.value.headers()["Retry-After"] == "30"


@pytest.mark.parametrize("pinned", [None, FOUND])
async def test_the_pinned_vectors_start(pinned):
    same = model("m", pinned=pinned)
    await same.start()
    assert same.embedder.health().state == "ready"


@pytest.mark.parametrize(
    ("pinned", "changed"),
    [
        ("0" * 8 + "f" * 16 + ".fake-float32", "weights or configuration"),
        ("f" * 20 + "0000.fake-float32", "long-input rule"),
        ("f" * 24 + ".fake-bfloat16", "runtime or precision"),
        ("f" * 8 + "0" * 8 + "f" * 8 + ".other-float32", "tokenizer and pooling and runtime or precision"),
        ("something else", "the whole model"),
    ],
)
async def test_other_vectors_than_the_pinned_ones_do_not_start_and_what_changed_is_named(pinned, changed):
    with pytest.raises(OperatorError) as caught:
        await model("m", pinned=pinned).start()
    message = str(caught.value)
    assert message == (
        f"models[m].fingerprint: these are not the pinned vectors: {changed} changed; pinned {pinned}, found {FOUND}"
    )


async def test_an_alias_of_a_star_serves_every_name_that_no_model_has_and_is_in_no_list():
    small, large = model("small", "*"), model("large")
    catalog = Catalog([small, large])
    assert [catalog.find(name) for name in ("small", "gpt-4", "*", "")] == [small] * 4
    assert catalog.find("large") is large
    assert dict(catalog) == {"small": small, "large": large}
    assert small.row.names == ("small",)


@pytest.mark.parametrize("models", [lambda: [model("a", "*"), model("b", "*")]])
def test_two_models_cannot_take_every_name(models):
    with pytest.raises(ConfigurationError, match=r"^models\[b\]: the alias '\*' is used twice$"):
        Catalog(models())


def test_a_star_is_no_name():
    with pytest.raises(ValueError, match="an alias alone"):
        model("*")
