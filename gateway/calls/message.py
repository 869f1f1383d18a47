"""The messages of calls for vectors, and those of a Ray client. Headers of frames, in msgpack; see `framing`."""

import msgspec
from msgspec import Struct

from gateway.access.keys.key import Caller
from gateway.access.limits.local_store import RateState
from gateway.config import LongInput
from gateway.embedding.embedder import Description, ServiceClass, StageSeconds
from gateway.engine.encoder import NetworkInfo
from gateway.engine.settings import LocalSettings


class Message(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """The base of all headers."""


class EmbedCall(Message, frozen=True, kw_only=True):
    """Embed the windows of the payload, for vectors of `fingerprint` and no others, within `seconds`. `field` is that of Inputs.

    To this machine's engine process, a call has more. `model` is the place of the model's row in the configuration `generation`.
    `lease` is the number of the request's lease, which is charged for its tokens; 0 if the caller has no limits. With `entering` it
    first enters a lease of this caller, under its own number. It has only the distinct inputs: input i of the request is input
    `places[i]` of the call; `places` is empty if all differ. `digests` are their keys in the cache, as `embedding.cache.keys_of`
    gives them; `token_counts`, `is_long` and `rule` are those of Prepared, where `is_long` is empty if no input is long. The
    windows of an input that the cache has are not looked at. A payload of 0 bytes asks for inputs that the cache is thought to
    have. `trace` has the W3C headers of the request's span, if it is traced.
    """

    number: int
    seconds: float
    caller: str
    normalize: bool
    fingerprint: str
    weight: float = 1.0
    service_class: ServiceClass = "interactive"
    field: str = "input"
    generation: int = 0
    model: int = 0
    lease: int = 0
    entering: Caller | None = None
    digests: list[bytes] = []
    token_counts: list[int] = []
    is_long: list[bool] = []
    rule: LongInput = "chunk"
    places: list[int] = []
    trace: dict[str, str] = {}

    @property
    def charged_lease(self) -> int:
        """The number of the lease that it is charged to, 0 for none."""
        return self.lease if self.entering is None else self.number


class CancelCall(Message, frozen=True, kw_only=True):
    """Cancels call `number`: its caller has left."""

    number: int


class EmbedResult(Message, frozen=True, kw_only=True):
    """The answer to call `number`: the payload is rows of `dimensions` float32. `backlog_seconds` is the replica's queue.

    The other fields are those of Vectors; with `row_counts`, each row is `Description.row_width` wide. This machine's engine
    process also tells `num_cached_tokens` of Prepared, and the `state` of the caller's limits, None if it has none. Rows,
    `row_counts` and `token_counts` are of the call's inputs; `num_hits` and `num_cached_tokens` count the request's, by `places`.
    """

    number: int
    dimensions: int
    stages: StageSeconds
    backlog_seconds: float = 0.0
    row_counts: list[int] | None = None
    num_hits: int | None = None
    num_cached_tokens: int = 0
    token_counts: list[int] | None = None
    member: str | None = None
    fingerprint: str | None = None
    state: RateState | None = None


class EmbedRefusal(Message, frozen=True, kw_only=True):
    """Call `number` gets no vectors. `code` is one of gateway/errors/, "lost", "other_vectors" or "failed"."""

    number: int
    code: str
    retry_after_seconds: float = 1.0
    where: str = ""
    reason: str = ""


class ClusterStatus(Message, frozen=True, kw_only=True):
    """The cluster as the Ray client sees it: whether it takes calls, why not, and how many replicas are in each state."""

    is_up: bool
    detail: str = ""
    replicas: dict[str, int] = {}
    fingerprint: str | None = None  # of a replica, fetched just now


class ReplicaInfo(Message, frozen=True, kw_only=True):
    """A model's description elsewhere. With it a process tokenises and cuts exactly as the model would, without its files."""

    description: Description
    settings: LocalSettings
    network: NetworkInfo
    tokenizer_json: str


class Shutdown(Message, frozen=True, kw_only=True):
    """The Ray client ends, with its reason."""

    reason: str


ClientCommand = EmbedCall | CancelCall
ClientEvent = EmbedResult | EmbedRefusal | ClusterStatus | ReplicaInfo | Shutdown
encode = msgspec.msgpack.Encoder().encode
to_client = msgspec.msgpack.Decoder(ClientCommand)
from_client = msgspec.msgpack.Decoder(ClientEvent)
