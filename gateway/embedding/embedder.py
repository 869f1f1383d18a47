"""The interface of an embedder: its inputs, its vectors, its description and its health."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gateway.config import LongInput, Task
from gateway.embedding.quantization import Ranges

ServiceClass = Literal["interactive", "background"]
State = Literal["loading", "ready", "failed"]
StageSeconds = dict[str, float]
# An embedder gives a vector of a text. A reranker gives one score of a query and a text, its logit: a vector of one dimension. A
# sparse encoder gives a weight for each word of its vocabulary, a multi-vector encoder a vector for each token.
ModelKind = Literal["embedder", "reranker", "sparse_encoder", "multi_vector_encoder"]
# Of the float32 numbers in one reply's rows, for models whose inputs have any number of rows: 32 MB. 2,048 texts may have 2,048
# weights each; trained sparse encoders give some 20 to 400.
MAX_NUMBERS = 8 * 1024 * 1024

WorkT = TypeVar("WorkT")
WorkT_co = TypeVar("WorkT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one request, with its caller and its deadline.

    `deadline` is on the clock of `time.monotonic`, in seconds. If `long_input` or `input_type` is None, the model chooses.
    `input_type` is the name of one of the model's prompts, or of a purpose without a prompt; `instruction` replaces that prompt.
    `positions` are the client's own numbers of the inputs, if some were taken out.
    `query` is what a reranker compares every text with; None for all other models. `max_document_tokens` is how many tokens of each
    text a reranker reads; the rest is left out, as the client asked.
    `field` is the client's own name of the array of texts, for errors.
    `token_ids[i]`, if there, is input i as ids of the model's own tokenizer, which stand as they are; text i is then empty. Only a
    model whose description says `takes_token_ids` gets them.
    `caller` is the key of fair queueing: busy callers of one `service_class` share a device in proportion to their `weight`.
    A client that disconnects cancels the task that awaits the embedder; nothing else needs to know.
    """

    texts: list[str]
    is_array: bool
    caller: str
    deadline: float
    long_input: LongInput | None = None
    input_type: str | None = None
    instruction: str | None = None
    normalize: bool = True
    query: str | None = None
    max_document_tokens: int | None = None
    token_ids: list[list[int] | None] | None = None
    positions: tuple[int, ...] | None = None
    field: str = "input"
    weight: float = 1.0
    service_class: ServiceClass = "interactive"

    def where(self, index: int) -> str:
        """The name of an input as the client knows it."""
        position = self.positions[index] if self.positions else index
        return f"{self.field}[{position}]" if self.is_array else self.field

    def only(self, indices: list[int]) -> "Inputs":
        """Some of the inputs, under their old names. Returns itself if `indices` are all of them, in order."""
        if len(indices) == len(self.texts):
            return self
        positions = tuple(self.positions[index] for index in indices) if self.positions else tuple(indices)
        token_ids = None if self.token_ids is None else [self.token_ids[index] for index in indices]
        return replace(self, texts=[self.texts[index] for index in indices], token_ids=token_ids, positions=positions)


def _no_work() -> Any:
    """None, the work of an embedder that needs only the inputs: Prepared[None]."""
    return None


@dataclass(frozen=True, slots=True)
class Prepared(Generic[WorkT_co]):
    """Inputs that were checked and counted, but not embedded yet.

    `token_counts[i]` are the tokens of input i, special tokens included, long inputs in full. `is_long[i]` means that input i is
    longer than the model reads at once and that `rule` was applied. `num_cached_tokens` of all tokens need no work. `work` is for
    the `embed` of the same embedder; other code only reads the counts, of a Prepared[object].
    """

    inputs: Inputs
    token_counts: list[int]
    is_long: list[bool]
    rule: LongInput
    work: WorkT_co = field(default_factory=_no_work)
    stages: StageSeconds = field(default_factory=dict)
    num_cached_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(self.token_counts)

    def with_work(self, work: WorkT) -> "Prepared[WorkT]":
        """The same inputs, for an embedder that puts its own work around another's."""
        return Prepared(
            self.inputs,
            self.token_counts,
            self.is_long,
            self.rule,
            work=work,
            stages=self.stages,
            num_cached_tokens=self.num_cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Vectors:
    """`rows` has shape (n, dimensions) and dtype float32, in input order; each is of length 1 unless `normalize` was false.

    If `row_counts` is not None, input i has `row_counts[i]` of the rows, which are as the model gives them. They have the width
    `Description.row_width`: a sparse encoder's are pairs of a term and its weight, by term, a multi-vector encoder's a vector of
    each token. A term's number is exact as a float32, which holds every integer up to 2**24.

    `num_hits` counts the inputs that the cache had; None without a cache. `token_counts` correct those of Prepared if these were
    estimates, else None; so does `num_cached_tokens`, if another process has the cache. `member` names the member of a group that
    made them. `fingerprint` is that of these vectors, if the embedder's description may have changed since.
    """

    rows: NDArray[np.float32]
    stages: StageSeconds = field(default_factory=dict)
    num_hits: int | None = None
    token_counts: list[int] | None = None
    member: str | None = None
    fingerprint: str | None = None
    row_counts: list[int] | None = None
    num_cached_tokens: int | None = None

    def by_input(self) -> list[NDArray[np.float32]]:
        """The rows of each input."""
        return list(self.rows) if self.row_counts is None else np.split(self.rows, np.cumsum(self.row_counts)[:-1])


@dataclass(frozen=True, slots=True)
class Description:
    """A loaded model. `max_tokens` is the most that it reads at once, special tokens included; `created` is in Unix seconds.

    `kind` says what its rows are, `pooling` how they come from the tokens' vectors, if that is known: mean, cls, lasttoken.
    `prompts` are the names of its prompts, `tasks` the purposes for which it has routes of its own.
    `nearest_kept` is the share of a text's ten nearest that the vectors of an 8-bit network keep; None for any other.
    `fallback` tells operators which runtime or precision was given up for this one, and why.

    `alike` are further fingerprints of the very same vectors: measured ones, within their noise of a boundary.
    `members` are the fingerprints of a group's members whose vectors were found to equal the first one's.
    `scope` is the prefix of its cache entries; if empty, the fingerprint is. Two models of one scope give the same vectors; a model
    whose vectors changed has a new scope.
    `ranges` are those of its vectors' dimensions, for int8 and uint8, if they were measured.
    `num_bytes` is the memory that it takes on this machine while it is loaded: docs/models.md says what is counted; 0 elsewhere.
    """

    backend: str
    source: str
    dimensions: int
    max_tokens: int
    long_input: LongInput
    fingerprint: str
    runtime: str
    device: str
    precision: str
    created: int
    kind: ModelKind = "embedder"
    pooling: str = ""
    fidelity: float | None = None
    nearest_kept: float | None = None
    prompts: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    takes_instruction: bool = False
    takes_token_ids: bool = False
    alike: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    scope: str = ""
    fallback: str = ""
    ranges: Ranges | None = None
    num_bytes: int = 0

    @property
    def row_width(self) -> int | None:
        """The columns of `Vectors.rows` if an input has any number of rows; None if it has exactly one."""
        if self.kind == "sparse_encoder":
            return 2
        return self.dimensions if self.kind == "multi_vector_encoder" else None


@dataclass(frozen=True, slots=True)
class Health:
    """`detail` is for operators: what is loading, or why it failed. It never goes to a client.

    * `is_available` is false while a ready model cannot serve because its server does not answer. Requests are refused at once.
    * `category`, of a model that is "loading": it waits for something unavailable, such as another server, and becomes ready by
      itself. Until then it counts as failed. The category is a public word, such as "upstream_unavailable".
    * `trouble` is a public word too: the model serves, but an operator should look at it.
    * `learned` are settings for its row that its server's refusals taught, such as {"max_inputs": 10}. They are public.
    * `dead_parts` are the names of background work that died and that only a restart brings back. `/livez` lists them, and the
      model goes on as far as it can.
    """

    state: State
    detail: str = ""
    category: str = ""
    is_available: bool = True
    trouble: str = ""
    learned: Mapping[str, int] = field(default_factory=dict)
    dead_parts: tuple[str, ...] = ()


@runtime_checkable
class Verified(Protocol):
    """An embedder whose vectors may change while it runs, as those of another server can."""

    async def verify(self) -> None:
        """Called before earlier vectors are served. Afterwards `describe` is up to date. Raises Unavailable if it cannot verify."""


@runtime_checkable
class Unloadable(Protocol):
    """An embedder whose model can be taken out of memory, and loaded again by `start`."""

    async def plan_load(self) -> int:
        """Makes ahead what `start` would have to make. Returns the bytes that the loaded model will take; 0 if they are unknown.

        Raises OperatorError.
        """

    async def unload(self) -> None:
        """Frees the model's memory; called while nobody uses it. From the first step on `health` says "loading".

        `describe` goes on to give the description of the latest load.
        """


class Embedder(Protocol[WorkT]):
    """Turns inputs into vectors. Local, cached, upstream and clustered embedders all implement this.

    Only the embedder that prepared inputs can embed them: WorkT is the type of its work.
    """

    async def start(self) -> None:
        """Loads and warms up. May wait for something unavailable, as long as `health` says so.

        Raises OperatorError saying what is missing; may then be called again.
        """

    async def prepare(self, inputs: Inputs) -> Prepared[WorkT]:
        """Tokenises or estimates, checks and counts. Raises InputTooLong, RequestTooLong or DeadlinePassed."""

    async def embed(self, prepared: Prepared[WorkT]) -> Vectors:
        """Computes the vectors. Raises Unavailable if it is full, late or broken, Unembeddable if an input has no vector."""

    def describe(self) -> Description:
        """The description of the loaded model. Only called once `start` has returned."""

    def health(self) -> Health:
        """The state now. Cheap: every probe and every request calls it."""

    async def close(self) -> None:
        """Ends threads and connections; work that still waits fails with Unavailable. May be called twice, or before `start`."""


AnyEmbedder: TypeAlias = Embedder[Any]  # for code that has embedders of many kinds, and gives each its own prepared work
