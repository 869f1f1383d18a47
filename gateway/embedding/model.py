"""A model: a row of the configuration, the embedder that serves it, and the state of its load."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from gateway.config import ModelRow, OutputDtype
from gateway.embedding.embedder import AnyEmbedder, Description, ModelKind, Unloadable, Vectors
from gateway.embedding.fingerprint import changes
from gateway.embedding.quantization import RANGED, Ranges
from gateway.embedding.row_ranges import RowRanges
from gateway.errors import ConfigurationError, GatewayError, InvalidValue, OperatorError, UpstreamError

LAYER_NORM = "-ln"  # at the end of a fingerprint
ModelState = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(slots=True)
class _LoadState:
    """The state of loading an embedder. It outlives the configuration it was built for, as its embedder does."""

    task: asyncio.Task[None] | None = None  # the latest load
    failure: BaseException | None = None  # of that load
    num_failures: int = 0  # in a row
    retry_at: float = 0.0  # when the next may begin, on the clock of `time.monotonic`
    num_waiting: int = 0  # requests that wait for it
    may_be_given_up: bool = False  # it waits for its turn or for room, so that it can be cancelled
    has_described: bool = False  # it has been loaded before
    reason: str = ""  # of the latest load: start, request or retry
    num_users: int = 0  # requests that use the model
    num_keepers: int = 0  # batches that want it to stay loaded
    used_at: float = 0.0  # last, on the clock of `time.monotonic`
    idle_since: float | None = None  # in Unix seconds; None while it has users, and until it was loaded
    loaded_at: float = 0.0
    load_seconds: float = 0.0
    is_leaving: bool = False  # it is to be unloaded after its last user: further requests wait for its next load
    is_replaced: bool = False  # by a row of a configuration that is being loaded, or has been
    unloading: asyncio.Task[None] | None = None

    @property
    def is_loading(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it, nor is about to: those who waited for a load that has just ended are no users yet."""
        return not self.num_users and not self.num_keepers and (self.is_loading or not self.num_waiting)


@dataclass(frozen=True, slots=True)
class Model:
    """`embedder` serves requests; `built` is the backend's own, without the cache around it. `row_ranges` are the row's own."""

    row: ModelRow
    embedder: AnyEmbedder
    built: AnyEmbedder | None = None
    load_state: _LoadState = field(default_factory=_LoadState)
    row_ranges: RowRanges = field(default_factory=RowRanges)

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def state(self) -> ModelState:
        """ "unloaded": its next request loads it. "failed": it could not be loaded, or has broken since."""
        if self.load_state.failure is not None:
            return "failed"
        health = self.embedder.health()
        if health.state == "loading" and health.category:
            return "failed"
        is_waiting = health.state == "loading" and self.load_state.task is None and self.row.load == "first_use"
        return "unloaded" if is_waiting else health.state

    @property
    def is_broken(self) -> bool:
        """Whether it was ready and failed since: only a restart helps. A model that could not be loaded is retried instead."""
        return self.load_state.failure is None and self.embedder.health().state == "failed"

    @property
    def unloadable(self) -> Unloadable | None:
        """Its embedder, if that can be unloaded; else None."""
        return self.built if isinstance(self.built, Unloadable) else None

    @property
    def is_described(self) -> bool:
        """Whether `describe` has something to say: it is loaded, or was before."""
        return self.state == "ready" or (self.state == "unloaded" and self.load_state.has_described)

    @property
    def num_bytes(self) -> int:
        """The memory that it takes on this machine while it is loaded; 0 if it is elsewhere, or was never loaded."""
        return self.embedder.describe().num_bytes if self.load_state.has_described else 0

    async def start(self) -> None:
        """Starts the embedder, if it is not ready yet, and checks it against the row. Raises as `check`, and OperatorError."""
        if self.embedder.health().state != "ready":
            await self.embedder.start()
        self.check()

    def check(self) -> None:
        """Raises OperatorError if vectors or ranges are not the pinned ones, ConfigurationError for dimensions that cannot be."""
        about = self.describe()
        refuse_settings_of_vectors(self.row, about.kind)
        pinned, found = self.row.fingerprint, about.fingerprint
        if not self.is_pinned(found):
            raise OperatorError(
                f"models[{self.name}].fingerprint: these are not the pinned vectors:"
                f" {' and '.join(changes(pinned or '', found))} changed; pinned {pinned}, found {found}",
                category="other_fingerprint",
            )
        if self.row.max_dimensions is not None and self.row.max_dimensions > about.dimensions:
            raise ConfigurationError(
                f"models[{self.name}].max_dimensions: {self.row.max_dimensions} cannot be: the model's vectors have"
                f" {about.dimensions} dimensions",
                category="dimensions",
            )
        self._check_ranges(about)

    def _check_ranges(self, about: Description) -> None:
        """Raises ConfigurationError for ranges of too many dimensions, OperatorError if ranges are not the pinned ones."""
        if too_long := [each for each in self.row_ranges.by_dimensions if each > about.dimensions]:
            raise ConfigurationError(
                f"models[{self.name}].quantization_ranges: these are the ranges of {max(too_long)} dimensions; the model's vectors"
                f" have {about.dimensions}",
                category="dimensions",
            )
        ranges = self.ranges_of(self.dimensions)
        if self.row.quantization is not None and (ranges is None or ranges.id != self.row.quantization):
            raise OperatorError(
                f"models[{self.name}].quantization: these are not the pinned ranges; pinned {self.row.quantization}, found"
                f" {ranges.id if ranges is not None else 'none'}",
                category="other_quantization",
            )

    def ranges_of(self, dimensions: int) -> Ranges | None:
        """The ranges for int8 and uint8 of vectors cut to `dimensions`: the row's, or the model's own if nothing is cut."""
        measured = self.embedder.describe().ranges
        own = measured if measured is not None and measured.dimensions == dimensions else None
        return self.row_ranges.of(dimensions) or own

    def ranges_for(
        self, dtypes: Collection[OutputDtype], dimensions: int | None = None, *, normalize: bool = True
    ) -> Ranges | None:
        """The ranges that these types need, of vectors of `dimensions`, by default the model's; None if they need none.

        Raises InvalidValue, naming the type, if there are none.
        """
        ranged = [dtype for dtype in dtypes if dtype in RANGED]
        if not ranged:
            return None
        if not normalize:
            raise InvalidValue(
                f"Invalid value for 'output_dtype': '{ranged[0]}' is for vectors of length 1, whose ranges are known; ask for"
                " normalized vectors, or for 'float', 'binary' or 'ubinary'.",
                param="output_dtype",
            )
        dimensions = dimensions or self.dimensions
        ranges = self.ranges_of(dimensions)
        if ranges is None:
            raise InvalidValue(
                f"Invalid value for 'output_dtype': of the model `{self.name}` the ranges for '{ranged[0]}' vectors of {dimensions}"
                " dimensions are not known here; its row may name them (quantization_ranges). 'binary' and 'ubinary' need none.",
                param="output_dtype",
            )
        return ranges

    @property
    def output_dtypes(self) -> tuple[OutputDtype, ...]:
        """The types in which it gives vectors of its default dimensions."""
        every: tuple[OutputDtype, ...] = get_args(OutputDtype)
        has_ranges = self.ranges_of(self.dimensions) is not None
        return tuple(dtype for dtype in every if has_ranges or dtype not in RANGED)

    def name_of(self, fingerprint: str) -> str:
        """The fingerprint that clients see: with a suffix if the row cuts vectors from a layer norm, as those differ once cut."""
        return f"{fingerprint}{LAYER_NORM}" if self.row.layer_norm_before_cut else fingerprint

    def is_pinned(self, fingerprint: str) -> bool:
        """Whether vectors of this fingerprint may be served: it is the row's, means the same vectors, or the row names none."""
        pinned = self.row.fingerprint
        return pinned is None or pinned == fingerprint or pinned in map(self.name_of, self.embedder.describe().alike)

    def fingerprint_of(self, vectors: Vectors | None = None) -> str:
        """The fingerprint that clients see: the pinned one if the vectors' own means the same.

        For a group it is the serving member's own, perhaps of another precision than the first's: the group has proven them equal.
        Raises UpstreamError if the vectors are not the pinned ones.
        """
        own = vectors.fingerprint if vectors is not None else None
        if vectors is not None and vectors.member is not None and own is not None:
            return own
        found = self.name_of(own or self.embedder.describe().fingerprint)
        if not self.is_pinned(found):
            raise UpstreamError(self.name, "gives other vectors than those that are pinned")
        return self.row.fingerprint or found

    def describe(self) -> Description:
        """The embedder's description, with the fingerprint that clients see."""
        about = self.embedder.describe()
        pinned = self.row.fingerprint
        is_alike = pinned is not None and pinned in map(self.name_of, about.alike)
        shown = pinned if pinned is not None and is_alike else self.name_of(about.fingerprint)
        return about if shown == about.fingerprint else replace(about, fingerprint=shown)  # a copy takes 4 microseconds

    @property
    def trouble(self) -> str:
        """A public word for what an operator should look at; "" if there is nothing."""
        if self.state != "ready":
            return ""
        is_other = not self.is_pinned(self.describe().fingerprint)
        return "other_fingerprint" if is_other else self.embedder.health().trouble

    @property
    def dimensions(self) -> int:
        """The default and the maximum of a request's `dimensions`. Known only once the model is loaded."""
        return self.row.max_dimensions or self.describe().dimensions

    @property
    def category(self) -> str:
        """Why it is "failed", as a public word."""
        failure = self.load_state.failure
        if failure is None:
            return self.embedder.health().category or "broken"
        if isinstance(failure, OperatorError):
            return failure.category
        return failure.outcome if isinstance(failure, GatewayError) else "internal_error"


def has_settings_of_vectors(row: ModelRow) -> bool:
    """Whether the row has a setting that only embedders have."""
    return bool(_settings_of_vectors(row))


def refuse_settings_of_vectors(row: ModelRow, kind: ModelKind | None) -> None:
    """Raises ConfigurationError, naming the setting, if a model is no embedder and its row has one that only vectors have."""
    if kind not in {None, "embedder"} and (names := _settings_of_vectors(row)):
        raise ConfigurationError(
            f"models[{row.name}].{names[0]}: it is for vectors, and this model is a {_in_words(kind)}: remove it"
        )


def _settings_of_vectors(row: ModelRow) -> list[str]:
    values = {
        "max_dimensions": row.max_dimensions,
        "layer_norm_before_cut": row.layer_norm_before_cut,
        "quantization_ranges": row.quantization_ranges,
        "quantization": row.quantization,
    }
    return [name for name, value in values.items() if value]


def _in_words(kind: ModelKind | None) -> str:
    given = {
        "reranker": "which gives scores", "sparse_encoder": "which gives weights of words",
        "multi_vector_encoder": "which gives a vector for each token",
    }  # fmt: skip
    return f"{(kind or 'embedder').replace('_', ' ')}, {given.get(kind or '', 'which gives vectors')}"


def refuse_other_than_embedder(name: str, kind: ModelKind | None) -> None:
    """Raises OperatorError for a model that is known to give no vector of a text. A kind of None is not known yet."""
    if kind not in {None, "embedder"}:
        raise OperatorError(f"models[{name}] is a {_in_words(kind)}, and no vectors of texts")


def refuse_reranker(name: str, kind: ModelKind | None) -> None:
    """Raises OperatorError for a model that is known to give no vectors of any sort. A kind of None is not known yet."""
    if kind == "reranker":
        raise OperatorError(f"models[{name}] is a reranker: it gives scores of a query and documents, and no vectors of texts")
