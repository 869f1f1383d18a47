"""A door: one endpoint of one protocol. It parses bodies into a shape of its own, and writes replies and errors in its own words.

It knows nothing of limits, threads or metrics: `gateway/api/inference.py` has the road that the requests of all doors take.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct, field
from numpy.typing import NDArray

from gateway.access.keys.key import Caller
from gateway.access.limits.lease import Lease
from gateway.api.error_format import JSON, ErrorFormat, openai_error
from gateway.api.request_log import RequestRecord
from gateway.config import OutputDtype
from gateway.embedding.catalog import Model
from gateway.embedding.embedder import Prepared, Vectors
from gateway.embedding.model_use import ModelUse
from gateway.embedding.quantization import Ranges, quantize
from gateway.embedding.vectors import Float32
from gateway.server.headers import Headers
from gateway.wire.request import EmbeddingsRequest

AskedT = TypeVar("AskedT")
DecodedT_co = TypeVar("DecodedT_co", covariant=True)
RequestT = TypeVar("RequestT", bound="InferenceRequest")
RequestT_co = TypeVar("RequestT_co", bound="InferenceRequest", covariant=True)


class JSONReply:
    """A JSON response with status 200, as an ASGI application. Litestar's Response does more, and takes 20 times as long: 25
    microseconds."""

    def __init__(self, content: bytes, headers: dict[str, str]) -> None:
        self.content = content
        self.headers = {**headers, "content-type": JSON, "content-length": str(len(content))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.content, "more_body": False})


class RequestContext(Struct, frozen=True, eq=False):
    """An admitted request: who sent it, its record, its deadline on the clock of `time.monotonic` in seconds, its headers.

    `uses` are of the models that have to stay loaded until `release`.
    """

    lease: Lease
    record: RequestRecord
    deadline: float
    headers: Headers
    uses: list[ModelUse] = field(default_factory=list)

    def release(self) -> None:
        """The request has ended, in any way."""
        for use in self.uses:
            use.release()

    @property
    def caller(self) -> Caller:
        return self.lease.caller


class Decode(Protocol[DecodedT_co]):
    """Parses a body. `path_model`, from the path, overrides the body's model; `default_model` is used if neither names one.

    Any bytes at all give a request or a ClientError that names what is wrong. It runs in a thread if the body is large.
    """

    def __call__(self, raw: bytes, *, path_model: str | None, default_model: str | None) -> DecodedT_co: ...


@dataclass(frozen=True, slots=True)
class Door(Generic[AskedT]):
    """One endpoint for POST requests.

    `path` is its route, `name` its handler's in the route table. `decode` parses the body, `answer` does the rest. `errors` is how
    it writes errors; a door whose body decides that changes `RequestRecord.error_format` once it knows. `default_model` finds the
    model of a body that names none; by default it is `server.default_model`. `operation` is OpenTelemetry's name of what it does.
    `needs_json_type`: a body of another Content-Type is refused.
    """

    path: str
    name: str
    decode: Decode[AskedT]
    answer: Callable[[AskedT, RequestContext], Awaitable[ASGIApp]]
    errors: ErrorFormat = openai_error
    default_model: Callable[[Caller], str | None] | None = None
    operation: str = "embeddings"
    needs_json_type: bool = False


class InferenceRequest(Protocol):
    """What the requests of all doors have. `asked_prompt` is the prompt or the instruction that the client asked for, if any."""

    @property
    def model(self) -> str: ...

    @property
    def texts(self) -> list[str]: ...

    @property
    def asked_prompt(self) -> str | None: ...


class Computed(Struct, Generic[RequestT_co], frozen=True, eq=False):
    """What became of the texts of one request: `rows` of shape (n, d), float32, ready to be written.

    `ranges` are those of the rows, if the request asked for int8 or uint8.
    """

    asked: RequestT_co
    model: Model
    prepared: Prepared[object]
    vectors: Vectors
    rows: Float32
    token_counts: list[int]
    ranges: Ranges | None = None

    def as_dtype(self, dtype: OutputDtype) -> NDArray[Any]:
        """The rows in one of the types that the request asked for."""
        return quantize(self.rows, dtype, self.ranges)

    @property
    def num_tokens(self) -> int:
        return sum(self.token_counts)

    @property
    def num_cached_tokens(self) -> int:
        known = self.vectors.num_cached_tokens
        return self.prepared.num_cached_tokens if known is None else known


Embedded: TypeAlias = Computed[EmbeddingsRequest]  # `rows` are vectors as the request's `dimensions` cut them
