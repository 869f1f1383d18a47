"""The seam everything hangs on: what goes into an embedder, what comes out, and what it tells about itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gateway.config import LongInput, Task

ServiceClass = Literal["interactive", "background"]
State = Literal["loading", "ready", "failed"]
StageSeconds = dict[str, float]

WorkT = TypeVar("WorkT")
WorkT_co = TypeVar("WorkT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one request, and for whom and until when they are wanted.

    `deadline` is on the clock of `time.monotonic`, in seconds. `long_input` and `input_type` None leave the choice to the model.
    `input_type` is the name of one of its prompts, or of a purpose that has none; `instruction` takes that prompt's place.
    `positions` are the client's own, where some of its inputs were taken out.
    `caller` is the key of fairness: busy callers of one `service_class` get what a device serves in proportion to their `weight`.
    A client that leaves cancels the task that awaits the embedder; nothing else needs to be told.
    """

    texts: list[str]
    is_array: bool
    caller: str
    deadline: float
    long_input: LongInput | None = None
    input_type: str | None = None
    instruction: str | None = None
    normalize: bool = True
    positions: tuple[int, ...] | None = None
    weight: float = 1.0
    service_class: ServiceClass = "interactive"

    def where(self, index: int) -> str:
        """The name of an input as the client knows it."""
        position = self.positions[index] if self.positions else index
        return f"input[{position}]" if self.is_array else "input"

    def only(self, indices: list[int]) -> "Inputs":
        """Some of the inputs, which keep their names. All of them, in order, are the same inputs."""
        if len(indices) == len(self.texts):
            return self
        positions = tuple(self.positions[index] for index in indices) if self.positions else tuple(indices)
        return replace(self, texts=[self.texts[index] for index in indices], positions=positions)


def no_work() -> Any:
    """None, as the work of an embedder that needs no more than the inputs: Prepared[None]."""
    return None


@dataclass(frozen=True, slots=True)
class Prepared(Generic[WorkT_co]):
    """Inputs that were checked and counted, before any work is done.

    `token_counts[i]` are the tokens of input i, special tokens included, long inputs in full; `is_long[i]` says that input i is
    more than the model reads at once and that `rule` was applied. `num_cached_tokens` of them need no work. `work` is what the
    embedder made of the inputs, for its own `embed`; others only read the counts, of a Prepared[object].
    """

    inputs: Inputs
    token_counts: list[int]
    is_long: list[bool]
    rule: LongInput
    work: WorkT_co = field(default_factory=no_work)
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
    """`rows` has shape (n, dimensions) and dtype float32, in input order; of length 1 unless `normalize` was false.

    `num_hits` counts the inputs that a cache had; None where there is no cache. `token_counts` are the inputs' true ones where only
    the work could tell them; None where those of Prepared are true. `member` names the one of a group that made them. `fingerprint`
    is that of these vectors, where what the embedder describes may be another by now.
    """

    rows: NDArray[np.float32]
    stages: StageSeconds = field(default_factory=dict)
    num_hits: int | None = None
    token_counts: list[int] | None = None
    member: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a loaded model is. `max_tokens` is what it reads at once, special tokens included; `created` is in Unix seconds.

    `prompts` are the names of those it has, `tasks` the purposes that it has routes of their own for.
    `fallback` says, for operators, what was given up for this runtime and precision, and why.

    `alike` are fingerprints that mean the very same vectors, where these were measured and lie within their noise of a boundary.
    `scope` is what its cache entries are kept under: two models of one scope give the same vectors, and one that turned out to give
    others has a new one. The fingerprint, where it is empty.
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
    fidelity: float | None = None
    prompts: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    takes_instruction: bool = False
    alike: tuple[str, ...] = ()
    scope: str = ""
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """`detail` is for operators: what is loading, or why it failed. It never goes to a client.

    A model that is ready may not be available for a while: what serves it elsewhere does not answer, and requests are refused at
    once. One that is "loading" and has a `category` waits for something unavailable, such as another server, and comes by itself
    once that is back. Until then it counts as failed, and strangers are told the category: a word such as "upstream_unavailable".
    `trouble` is a word for strangers too, of a model that serves and that somebody should look at. `learned` are settings of its
    row that would say what its server's refusals taught, such as {"max_inputs": 10}; strangers may read them too. `dead_parts` are
    the names of background work that died and that only a restart brings back: `/livez` tells them, and the model goes on as far
    as it can.
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
    """An embedder whose vectors may become others while it runs, as those of another server do."""

    async def verify(self) -> None:
        """Before anything is served that it made earlier: afterwards `describe` is true. Raises Unavailable if it cannot tell."""


class Embedder(Protocol[WorkT]):
    """Turns inputs into vectors. Local, cached, remote and clustered embedders all look like this.

    What one has prepared only it can embed: WorkT is the type of that work.
    """

    async def start(self) -> None:
        """Loads and warms up. May wait for what is unavailable, as long as `health` says so.

        Raises OperatorError saying what is missing; may then be called again, when it may be there.
        """

    async def prepare(self, inputs: Inputs) -> Prepared[WorkT]:
        """Tokenises or estimates, checks and counts. Raises InputTooLong, RequestTooLong or DeadlinePassed."""

    async def embed(self, prepared: Prepared[WorkT]) -> Vectors:
        """Does the work. Raises Unavailable when full, late or broken, Unembeddable for an input without a vector."""

    def describe(self) -> Description:
        """What was loaded; only asked once `start` has returned."""

    def health(self) -> Health:
        """Cheap: asked by every probe and every request."""

    async def close(self) -> None:
        """Ends threads and connections; what still waits fails with Unavailable. May be called twice, or before `start`."""


AnyEmbedder: TypeAlias = Embedder[Any]  # for who holds embedders of many kinds, and hands each what it prepared itself
