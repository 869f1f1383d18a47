"""What a third party's object may be, and what it is asked, alone and as a member of a group."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from msgspec import Struct

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow
from gateway.embedding.backend import UNKNOWN, Backend, BoundBackend, Compiled, ConnectionCheck, Preview
from gateway.embedding.embedder import Health
from gateway.embedding.failover_backend import FailoverBackend
from gateway.embedding.registry import load_entry_point
from gateway.errors import ConfigurationError, OperatorError
from gateway.testing.fakes import FakeEmbedder


class WordsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    words: str = ""


class Bare:
    """No more than is asked for."""

    name = "bare"
    settings = WordsSettings

    def build(self, settings, context):
        return FakeEmbedder()


class Half(Bare):
    """It answers one question, without being a Backend."""

    name = "half"

    def check(self, settings, context):
        if not settings.words:
            raise OperatorError(f"no words in {context.data_dir.name}")


class Whole(Backend):
    """It answers all."""

    name = "whole"
    settings = WordsSettings
    has_cache = True
    made: FakeEmbedder

    def build(self, settings, context):
        return FakeEmbedder()

    def check(self, settings, context):
        raise ConfigurationError("words: none of these is known")

    def connections(self, settings, context):
        async def ask() -> str:
            return "there"

        return [ConnectionCheck(f"models[{context.name}] in the dictionary", ask)]

    def compile(self, settings, context, progress) -> Iterator[Compiled]:
        progress(context.name, "reading", share=0.5)
        yield Compiled(context.name, "read")

    def preview(self, settings, context):
        return Preview("a dictionary", dimensions=3, state="read")

    def is_local(self, settings, context):
        return True

    def find_compiled(self, settings, context, fingerprint):
        return self.made if fingerprint == "of-before" else None


class Wrapped(Bare):
    """Its vectors are another row's: a member that has a member."""

    name = "wrapped"

    def inner(self, context) -> BoundBackend:
        return context.member(ModelRow(name=f"{context.name}/inner", backend="half", settings={}))

    def build(self, settings, context):
        return self.inner(context).build().embedder

    def check(self, settings, context):
        self.inner(context).check()


def bound(tmp_path, row: dict[str, object]) -> BoundBackend:
    own = ModelRow(name="m", backend=row["backend"], settings={name: value for name, value in row.items() if name != "backend"})
    config = Config(models=(own,), auth=AuthSettings(mode="none"))
    backends = (Bare(), Half(), Whole(), Wrapped(), FailoverBackend())
    return Gateway(config, backends).bind(own)


def row_of(backend: str, place: str, **settings: object) -> tuple[dict[str, object], str]:
    """The row, and what it is called: alone, or as a member of a group beside one that has nothing to say."""
    row = {"backend": backend, **settings}
    if place == "alone":
        return row, "m"
    return {"backend": "group", "members": [{"backend": "bare"}, row | {"name": "it"}]}, "m/it"


@pytest.mark.parametrize("place", ["alone", "member"])
@pytest.mark.parametrize(
    ("backend", "words"), [("half", ": no words in "), ("whole", ": words: none of these"), ("wrapped", "/inner]: no words in ")]
)
def test_what_a_row_lacks_is_told_by_its_backend(tmp_path, backend, words, place):
    row, name = row_of(backend, place)
    with pytest.raises(OperatorError) as raised:
        bound(tmp_path, row).check()
    assert str(raised.value).startswith(f"models[{name}{']' if words.startswith(':') else ''}{words}")
    assert isinstance(raised.value, ConfigurationError) == (backend == "whole")


@pytest.mark.parametrize("place", ["alone", "member"])
def test_a_backend_that_answers_nothing_has_nothing_against_it(tmp_path, place):
    row, name = row_of("bare", place)
    asked = bound(tmp_path, row)
    asked.check()
    assert asked.connections() == []
    assert not asked.is_local()
    assert asked.find_compiled("of-before") is None
    assert list(asked.compile(silent))[-1] == Compiled(name, "nothing to compile: the backend 'bare' compiles nothing")
    assert asked.preview().state == (UNKNOWN if place == "alone" else f"1-bare: {UNKNOWN}; it: {UNKNOWN}")


@pytest.mark.parametrize("place", ["alone", "member"])
async def test_a_backend_that_answers_is_asked(tmp_path, monkeypatch, place):
    monkeypatch.setattr(Whole, "made", FakeEmbedder(), raising=False)
    row, name = row_of("whole", place)
    asked = bound(tmp_path, row)
    steps = []
    made = list(asked.compile(lambda name, step, share: steps.append((name, step, share))))
    assert (made[-1], steps) == (Compiled(name, "read"), [(name, "reading", 0.5)])
    [check] = asked.connections()
    assert (check.what, await check.ask()) == (f"models[{name}] in the dictionary", "there")
    assert asked.is_local()
    assert asked.find_compiled("of-before") is Whole.made
    assert asked.find_compiled("of-others") is None
    assert asked.preview() == Preview("a dictionary", dimensions=3, state="read") or asked.preview().state.endswith("; it: read")


async def test_a_group_starts_with_a_member_that_is_made_of_another_row(tmp_path):
    row, _ = row_of("wrapped", "member")
    model = bound(tmp_path, row).build()
    await model.start()
    try:
        assert model.embedder.health() == Health("ready")
        assert [member.is_checked for member in model.embedder.members] == [True, True]
    finally:
        await model.embedder.close()


def silent(name: str, step: str, *, share: float) -> None:
    """Nobody watches."""


@pytest.mark.parametrize(("backend", "has_cache"), [("bare", True), ("whole", False)])
def test_a_cache_is_put_around_it_unless_it_has_its_own(tmp_path, backend, has_cache):
    model = bound(tmp_path, {"backend": backend}).build()
    assert (model.embedder is not model.built) == has_cache
    assert type(model.built) is FakeEmbedder


class Named(Bare):
    name = "another"


class Uncallable(Bare):
    check = True


class Awaited(Bare):
    async def check(self, settings, context):
        """Nobody would await it."""


class AwaitedBuild(Bare):
    async def build(self, settings, context):
        return FakeEmbedder()


class NoStruct(Bare):
    settings = dict


GOOD, ANOTHER, BROKEN, PLAIN, AWAITED, AWAITED_BUILD = Bare(), Named(), Uncallable(), NoStruct(), Awaited(), AwaitedBuild()


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ("Bare", "is a class: name an object of it"),
        ("ANOTHER", "calls itself 'another': its entry point must have that name"),
        ("BROKEN", "has a `check` that cannot be called"),
        ("AWAITED", "has a `check` that is a coroutine: it is called without an event loop"),
        ("AWAITED_BUILD", "has a `build` that is a coroutine"),
        ("PLAIN", "has no `settings` Struct"),
        ("row_of", "has no `settings` Struct"),
        ("nothing", "cannot be loaded: AttributeError"),
    ],
)
def test_an_entry_point_that_names_no_backend_is_refused_by_name(thing, words):
    with pytest.raises(ConfigurationError, match=r"^the backend 'bare' of ") as raised:
        load_entry_point(EntryPoint("bare", f"{__name__}:{thing}", "gateway.backends"))
    assert words in str(raised.value)


def test_an_entry_point_that_names_a_backend_is_loaded():
    found = load_entry_point(EntryPoint("bare", f"{__name__}:GOOD", "gateway.backends"))
    assert (found.name, found.settings, found.has_cache) == ("bare", WordsSettings, False)
