"""The messages between a front and this machine's engine process. A front calls; the engine process answers, and pushes news.

A call has a number of the front's choice, unique on its channel; its answer has the same. Every call may be answered by a
CallFailure, and every call that waits may be ended by a CancelCall. Messages without a number of a call are not answered.
"""

from typing import Any

import msgspec

from gateway.access.keys.key import Caller
from gateway.access.limits.local_store import RateState
from gateway.calls.message import CancelCall, EmbedCall, EmbedResult, Message, ReplicaInfo
from gateway.config import LongInput
from gateway.embedding.embedder import Description, Health, Inputs, StageSeconds
from gateway.embedding.tokens import TokenizedText


class PrepareCall(Message, frozen=True, kw_only=True):
    """Check and count `inputs` of a model whose texts a front cannot tokenise. Its deadline is `seconds` from now.

    Repeated inputs are the engine process's to find. `trace` has the W3C headers of the request's span, if it is traced.
    """

    number: int
    generation: int
    model: int
    seconds: float
    inputs: Inputs
    trace: dict[str, str] = msgspec.field(default_factory=dict)


class PreparedResult(Message, frozen=True, kw_only=True):
    """The facts of Prepared. The engine process keeps its work until `EmbedPrepared`, or `CancelCall`, of the same number."""

    number: int
    token_counts: list[int]
    is_long: list[bool]
    rule: LongInput
    stages: StageSeconds
    num_cached_tokens: int = 0


class WindowsWanted(Message, frozen=True, kw_only=True):
    """The answer to an EmbedCall without windows whose inputs the cache does not have, or not all. Nothing was charged."""

    number: int
    state: None = None


class EmbedPrepared(Message, frozen=True, kw_only=True):
    """Embed what was prepared under this number, and charge it to the lease. The answer is an EmbedResult."""

    number: int
    lease: int = 0


class TokenizeCall(Message, frozen=True, kw_only=True):
    number: int
    generation: int
    model: int
    seconds: float
    inputs: Inputs
    add_special_tokens: bool


class TokenizeResult(Message, frozen=True, kw_only=True):
    number: int
    texts: list[TokenizedText]


class DecodeCall(Message, frozen=True, kw_only=True):
    number: int
    generation: int
    model: int
    seconds: float
    inputs: Inputs
    skip_special_tokens: bool


class DecodeResult(Message, frozen=True, kw_only=True):
    number: int
    texts: list[str]


class AuthenticateCall(Message, frozen=True, kw_only=True):
    """Whose `key` is this? It is the text that the client sent, and never logged."""

    number: int
    key: str

    def __repr__(self) -> str:
        return f"AuthenticateCall(number={self.number})"


class CallerResult(Message, frozen=True, kw_only=True):
    """The caller of an AuthenticateCall. A front may keep it until the next KeysChanged."""

    number: int
    caller: Caller


class BudgetCall(Message, frozen=True, kw_only=True):
    """Is the caller's budget spent? Answered by Done, or by a CallFailure if it is."""

    number: int
    caller: Caller


class RecordUse(Message, frozen=True, kw_only=True):
    """Requests of `caller` were answered."""

    caller: Caller
    model: str
    num_inputs: int
    num_tokens: int
    num_cached_tokens: int
    num_requests: int = 1


class EnterLease(Message, frozen=True, kw_only=True):
    """Enter a lease for one request of `caller`, under this number; it may wait for its turn. The answer is a LeaseState."""

    number: int
    caller: Caller


class ChargeLease(Message, frozen=True, kw_only=True):
    """Charge tokens to a lease, outside of a call for vectors. The answer is a LeaseState."""

    number: int
    lease: int
    num_tokens: int
    num_cached_tokens: int = 0


class LeaseState(Message, frozen=True, kw_only=True):
    """The caller's limits after a step of its lease. `waited_seconds` is how long it waited for its turn."""

    number: int
    state: RateState | None = None
    waited_seconds: float = 0.0


class ExitLease(Message, frozen=True, kw_only=True):
    """A request is over. `error` and its attributes are a CallFailure's, "" if it was answered; `num_bytes` is its body's size.

    `is_cancelled`: the front is stopping, or the request ran into its deadline before any work. `error` is "ClientGone" if the
    client left. A `number` other than 0 is answered with a LeaseState, for the headers of an error: what was refunded or charged
    for it is in there. A lease that is not known, or whose EnterLease still waits, is given up in silence.
    """

    lease: int
    number: int = 0
    num_bytes: int = 0
    error: str = ""
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    is_cancelled: bool = False


class ReadyCall(Message, frozen=True, kw_only=True):
    """Answer Done once the model can serve, a CallFailure if it cannot by then. `name` is what the client called it."""

    number: int
    generation: int
    model: int
    name: str
    seconds: float


class InfoCall(Message, frozen=True, kw_only=True):
    """What does a front need to tokenise for the model? Answered by ModelInfo."""

    number: int
    generation: int
    model: int


class ModelInfo(Message, frozen=True, kw_only=True):
    """`info` is None if the engine process tokenises for this model itself."""

    number: int
    info: ReplicaInfo | None = None


class HTTPCall(Message, frozen=True, kw_only=True):
    """A request that the engine process answers by its own application.

    The fields are those of the ASGI scope and of the request's record, which the front has made; `headers` are the client's own.
    `has_more`: there is a body. The front reads and sends it, as HTTPBody, once the first HTTPCredit says that the application asks
    for it: one that answers without it, as to a client without a key, leaves it unread. That credit may be of 0 bytes.
    """

    number: int
    request_id: str
    method: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    http_version: str = "1.1"
    scheme: str = "http"
    client: tuple[str, int] | None = None
    server: tuple[str, int | None] | None = None
    root_path: str = ""
    original_path: str = ""
    path_model: str | None = None
    has_more: bool = False


class HTTPBody(Message, frozen=True, kw_only=True):
    """The payload is the next part of a body, of the request (from the front) or of the response (to it)."""

    number: int
    has_more: bool = False


class HTTPCredit(Message, frozen=True, kw_only=True):
    """The receiver of a body has taken `num_bytes` of it: the sender keeps at most BODY_WINDOW bytes under way.

    It comes to a front before or after the HTTPResult of that call, which so is no answer that a Channel waits for.
    """

    number: int
    num_bytes: int


class HTTPResult(Message, frozen=True, kw_only=True):
    """The head of a response; the payload is its body's first part. The other fields are for the front's log line and metrics.

    `route` is the template of its route, "" if there is none. The headers have none of those that Edge adds.
    """

    number: int
    status: int
    headers: list[tuple[bytes, bytes]]
    has_more: bool = False
    outcome: str = "ok"
    route: str = ""
    caller: str | None = None
    is_rejected: bool = False


class Done(Message, frozen=True, kw_only=True):
    number: int


class CallFailure(Message, frozen=True, kw_only=True):
    """Call `number` failed: see `failure`. `state` is that of the caller's limits, if a lease was charged."""

    number: int
    error: str
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    state: RateState | None = None


class ModelState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model: `state` is that of Model; `health` and `description` are its embedder's own, `description` None until it was
    loaded.

    `is_tokenized_here`: the engine process tokenises for it, so that its requests go by PrepareCall, and not by EmbedCall.
    """

    state: str
    health: Health
    description: Description | None = None
    is_tokenized_here: bool = False


class Configure(Message, frozen=True, kw_only=True):
    """Build the parts of this configuration, and answer Done or a CallFailure. It takes effect with Commit. `config` is msgpack.

    It replaces one that was built and never committed. A front answers a failure by a ConfigurationError's text in `attributes`, as
    `message`. `methods` are the `Allow` headers of the engine process's routes, by their templates.
    """

    number: int
    generation: int
    config: msgspec.Raw
    models: list[ModelState]
    methods: dict[str, str] = msgspec.field(default_factory=dict)


class Commit(Message, frozen=True, kw_only=True):
    """The configuration `generation` is in effect."""

    generation: int


class ModelStates(Message, frozen=True, kw_only=True):
    """The models of `generation` by their place, as far as they changed."""

    generation: int
    models: dict[int, ModelState]


class Released(Message, frozen=True, kw_only=True):
    """The front sends no more calls of `generation`: its last request is over, or it was never committed.

    Until then the engine process keeps that generation open, as it keeps one that still has requests in one process.
    """

    generation: int


class KeysChanged(Message, frozen=True, kw_only=True):
    """Forget every caller that was authenticated."""


FrontMessage = (
    EmbedCall | CancelCall | PrepareCall | EmbedPrepared | TokenizeCall | DecodeCall | AuthenticateCall | BudgetCall | RecordUse
    | EnterLease | ChargeLease | ExitLease | ReadyCall | InfoCall | HTTPCall | HTTPBody | HTTPCredit | Released | Done | CallFailure
)  # fmt: skip
EngineMessage = (
    EmbedResult | WindowsWanted | PreparedResult | TokenizeResult | DecodeResult | CallerResult | LeaseState | ModelInfo
    | HTTPResult | HTTPBody | HTTPCredit | Done | CallFailure | Configure | Commit | ModelStates | KeysChanged
)  # fmt: skip
BODY_WINDOW = 256 * 1024  # bytes of one body that are under way between two processes

from_front = msgspec.msgpack.Decoder(FrontMessage)
from_engine = msgspec.msgpack.Decoder(EngineMessage)
