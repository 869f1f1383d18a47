"""The steps that the requests of all doors share, in order: access, limits, admission, body, deadline, model, vectors, reply.

A door is one endpoint of one protocol. It parses bodies into a shape of its own and writes replies and errors in its own words; it
knows nothing of limits, threads or metrics.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

from litestar import Request, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from numpy.typing import NDArray

from gateway.access.access_control import AccessControl
from gateway.access.admission import Admission
from gateway.access.keys.key import Caller
from gateway.access.limits.limiter import Limiter, RateLimitLease
from gateway.api import body
from gateway.api.authentication import authenticate
from gateway.api.error_format import JSON, ErrorFormat, openai_error
from gateway.api.models import allowed_model
from gateway.api.request_log import RequestRecord, record_of
from gateway.config import OutputDtype, ServerSettings
from gateway.embedding.catalog import Catalog, Model
from gateway.embedding.embedder import Description, Inputs, ModelKind, Prepared, StageSeconds, Vectors
from gateway.embedding.prompt import prompt_header, resolve_input_type, resolve_instruction, resolve_own_name, resolve_purpose
from gateway.embedding.quantization import Ranges, quantize
from gateway.embedding.vectors import Float32, refuse_no_vector, truncate
from gateway.errors import MAX_QUOTED_CHARS, ClientError, DeadlinePassed, InvalidValue, WrongModelKind
from gateway.metrics import Metrics
from gateway.server.headers import Headers
from gateway.tracing import stage
from gateway.wire.request import EmbeddingsRequest
from gateway.wire.token_ids import other_encoding

ALWAYS = sys.maxsize
MAX_ON_LOOP_BYTES = 64 * 1024  # larger bodies are decoded, and larger replies encoded, off the event loop
BYTES_PER_NUMBER = 12  # at most, for a float in a reply

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
AskedT = TypeVar("AskedT")
DecodedT_co = TypeVar("DecodedT_co", covariant=True)
RequestT = TypeVar("RequestT", bound="InferenceRequest")


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


@dataclass(frozen=True, slots=True)
class RequestContext:
    """An admitted request: who sent it, its record, its deadline on the clock of `time.monotonic` in seconds, its headers."""

    lease: RateLimitLease
    record: RequestRecord
    deadline: float
    headers: Headers

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


RequestT_co = TypeVar("RequestT_co", bound=InferenceRequest, covariant=True)


@dataclass(frozen=True, slots=True)
class Computed(Generic[RequestT_co]):
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


Embedded: TypeAlias = Computed[EmbeddingsRequest]  # `rows` are vectors as the request's `dimensions` cut them


class InferenceHandler:
    """Takes requests of every door along the same road. `pool` decodes large bodies and encodes large replies."""

    def __init__(  # noqa: PLR0913 - one for each step
        self,
        *,
        access: AccessControl,
        catalog: Catalog,
        admission: Admission,
        limiter: Limiter,
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        self.access = access
        self.catalog = catalog
        self.admission = admission
        self.limiter = limiter
        self.settings = settings
        self.metrics = metrics
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="wire")

    def route(self, door: Door[Any]) -> HTTPRouteHandler:
        """The door in Litestar's route table, which knows the other methods of its path."""

        async def handle(request: Request[Caller, None, State]) -> ASGIApp:
            return await self.handle(request.scope, request.receive, request.user, door)

        handle.__name__ = door.name
        return post(door.path, status_code=200)(handle)

    def application(self, door: Door[Any]) -> ASGIApp:
        """The door as an ASGI application for POST alone. Through Litestar a request takes 60 microseconds more."""

        async def post(scope: Scope, receive: Receive, send: Send) -> None:
            caller = await authenticate(scope, self.access, self.metrics)
            reply = await self.handle(scope, receive, caller, door)
            await reply(scope, receive, send)

        return post

    async def handle(self, scope: Scope, receive: Receive, caller: Caller, door: Door[AskedT]) -> ASGIApp:
        record = record_of(scope)
        record.operation = door.operation
        self.access.refuse_spent(caller)
        lease = record.lease = self.limiter.lease(caller, scope["state"].get("on_disconnect"))
        async with lease:  # it may wait for the key's concurrency limit; meanwhile it takes no admission slot
            timeout_seconds = self.settings.request_timeout_seconds - lease.waited_seconds
            with self.admission.enter() as permit:
                if door.needs_json_type:
                    body.refuse_other_types(list(scope["headers"]))
                encoding = body.encoding_of(scope)
                raw = await body.read(scope, receive, permit, self.settings)
                lease.num_bytes = len(raw)
                try:
                    async with body.CancelOnDisconnect(scope, receive), asyncio.timeout(timeout_seconds):
                        if encoding:
                            raw = await self.run_in_thread(ALWAYS, body.decompress, raw, max_bytes=self.settings.max_body_bytes)
                            lease.num_bytes = len(raw)
                            permit.hold(len(raw))
                        asked = await self.run_in_thread(
                            len(raw),
                            door.decode,
                            raw,
                            path_model=record.path_model,
                            default_model=self.default_model_of(door, caller),
                        )
                        headers = list(scope["headers"])
                        context = RequestContext(lease, record, time.monotonic() + timeout_seconds, headers)
                        return await door.answer(asked, context)
                except TimeoutError:
                    raise DeadlinePassed from None
                except ClientError as error:
                    self.admission.num_bytes_ever += error.num_wasted_bytes
                    raise

    def default_model_of(self, door: Door[AskedT], caller: Caller) -> str | None:
        return self.settings.default_model if door.default_model is None else door.default_model(caller)

    async def find_model(self, name: str, kind: ModelKind | None, context: RequestContext, *, num_inputs: int) -> Model:
        """Returns the model that serves `name`, loaded. Raises UnknownModel, ModelLoading, and WrongModelKind for another kind; any
        kind will do if `kind` is None."""
        model = allowed_model(self.catalog, name, context.caller)
        context.record.model, context.record.num_inputs = model.name, num_inputs
        await self.catalog.ensure_ready(model, name, deadline=context.deadline)
        if (found := model.describe().kind) != kind and kind is not None:
            raise WrongModelKind(model.name, found, wanted=kind)
        return model

    async def prepare(self, model: Model, inputs: Inputs, context: RequestContext) -> Prepared[object]:
        """Tokenises the inputs and charges their tokens to the caller's limit. Raises RateLimited before any work is done."""
        prepared = await model.embedder.prepare(inputs)
        model.fingerprint_of()  # raises before the charge if the fingerprint is not the pinned one
        context.record.num_tokens = prepared.num_tokens
        await context.lease.charge(prepared.num_tokens, num_cached_tokens=prepared.num_cached_tokens)
        return prepared

    async def _prepare_by_rule(
        self, model: Model, inputs: Inputs, context: RequestContext, *, is_default: bool
    ) -> Prepared[object]:
        """As `prepare`. If the model cannot apply a rule for long texts that no client asked for, it applies its own."""
        try:
            return await self.prepare(model, inputs, context)
        except InvalidValue as error:
            if not is_default or error.param != "long_input":
                raise
        return await self.prepare(model, replace(inputs, long_input=None), context)

    async def compute(self, model: Model, prepared: Prepared[object], context: RequestContext) -> tuple[Vectors, list[int]]:
        """Computes the rows. Returns them, and the tokens of each input: an upstream's own count, if it reported one."""
        vectors = await model.embedder.embed(prepared)
        model.fingerprint_of(vectors)  # it may have changed since
        token_counts = vectors.token_counts or prepared.token_counts
        record = context.record
        record.num_hits, record.member, record.num_tokens = vectors.num_hits, vectors.member, sum(token_counts)
        return vectors, token_counts

    async def embed(self, asked: EmbeddingsRequest, context: RequestContext, *, kind: ModelKind = "embedder") -> Embedded:
        """Embeds the texts of a request that any door parsed, by a model of `kind`. Only an embedder's vectors are cut."""
        model = await self.find_model(asked.model, kind, context, num_inputs=len(asked.texts))
        try:
            inputs = inputs_of(asked, context, model.describe())
            _refuse_unsupported(asked, model)
            ranges = model.ranges_for(asked.output_dtypes, asked.dimensions or model.dimensions, normalize=asked.normalize)
            prepared = await self._prepare_by_rule(model, inputs, context, is_default=asked.is_default_rule)
            vectors, token_counts = await self.compute(model, prepared, context)
        except InvalidValue as error:
            raise error.named(asked.sent_as) from None
        dimensions = context.record.dimensions = asked.dimensions or model.dimensions
        if kind != "embedder":
            return Computed(asked, model, prepared, vectors, vectors.rows, token_counts)
        rows = truncate(vectors.rows, dimensions, normalize=asked.normalize, layer_norm=model.row.layer_norm_before_cut)
        if rows is not vectors.rows:
            refuse_no_vector(rows, inputs)  # the requested components may all be zero
        return Computed(asked, model, prepared, vectors, rows, token_counts, ranges)

    async def reply(
        self,
        done: Computed[RequestT],
        context: RequestContext,
        encode: Callable[[Computed[RequestT]], bytes],
        *,
        num_bytes: int | None = None,
    ) -> JSONReply:
        """Writes the reply by the door's `encode`, records the request's use, and adds the headers that all doors have.

        `encode` runs in a thread if the reply is large; by default `num_bytes`, its size, is that of all numbers as text.
        """
        started = time.perf_counter()
        content = await self.run_in_thread(done.rows.size * BYTES_PER_NUMBER if num_bytes is None else num_bytes, encode, done)
        ended = time.perf_counter()
        stage("encode", started, ended)
        record = context.record
        record.stages = {**done.prepared.stages, **done.vectors.stages, "encode": ended - started}
        self.metrics.of_model(done.model.name).record_embedding(done.token_counts, record.stages)
        self.access.record(
            context.caller, model=done.model.name, num_inputs=len(done.asked.texts),
            num_tokens=done.num_tokens, num_cached_tokens=done.prepared.num_cached_tokens,
        )  # fmt: skip
        return JSONReply(content, _headers_of(done, record.stages))

    async def run_in_thread(
        self, num_bytes: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs `work` on the event loop if it is small, else in a thread."""
        if num_bytes <= MAX_ON_LOOP_BYTES:
            return work(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


def inputs_of(asked: EmbeddingsRequest, context: RequestContext, about: Description) -> Inputs:
    """The request for an embedder, with the model's own name of its prompt. Raises InvalidValue if there is no such prompt."""
    inputs = Inputs(
        texts=asked.texts,
        is_array=asked.is_array,
        caller=context.caller.public_id,
        deadline=context.deadline,
        long_input=asked.long_input,
        normalize=asked.normalize,
        token_ids=asked.token_ids,
        field=asked.sent_as.get("input", "input"),
        service_class="background" if asked.is_background else "interactive",
    )
    return _with_prompt(inputs, asked, about)


def _with_prompt(inputs: Inputs, asked: EmbeddingsRequest, about: Description) -> Inputs:
    """Returns the inputs with the model's own name of the requested prompt. Raises InvalidValue if the model has no such prompt."""
    if asked.input_type is None and asked.instruction is None:
        return inputs
    name = _resolver_of(asked)(asked.input_type, about)
    return replace(inputs, input_type=resolve_instruction(asked.instruction, name, about), instruction=asked.instruction)


def _resolver_of(asked: EmbeddingsRequest) -> Callable[[str | None, Description], str | None]:
    if asked.is_prompt_exact:
        return resolve_own_name
    return resolve_purpose if asked.is_prompt_optional else resolve_input_type


def _refuse_unsupported(asked: EmbeddingsRequest, model: Model) -> None:
    """Checks the request against the model.

    Raises InvalidValue for too many dimensions, a `truncate_prompt_tokens` other than the model's length, and token ids in an
    encoding that the gateway cannot read, or that are the model's own where it takes texts alone.
    """
    if asked.token_ids is not None and not model.describe().takes_token_ids:
        raise InvalidValue(
            f"Invalid 'input': the model `{model.name}` is on another server, and takes texts, not ids of its own tokens.",
            param="input",
        )
    if asked.dimensions is not None and asked.dimensions > model.dimensions:
        raise _too_many_dimensions(asked.dimensions, model)
    if asked.max_tokens is not None and asked.max_tokens != (reads := model.describe().max_tokens):
        raise InvalidValue(
            f"Invalid value for 'truncate_prompt_tokens': texts are cut to the {reads} tokens that the model `{model.name}` reads;"
            f" send {reads} or -1.",
            param="truncate_prompt_tokens",
        )
    if asked.has_ids and asked.model not in model.row.names and (encoding := other_encoding(asked.model)):
        raise InvalidValue(
            f"Invalid 'input': clients write token ids for `{asked.model[:MAX_QUOTED_CHARS]}` in {encoding}, and this server reads"
            " cl100k_base. Send texts.",
            param="input",
        )


def _too_many_dimensions(asked: int, model: Model) -> InvalidValue:
    """The error for too many dimensions. Clients size their stores by OpenAI's model names, so it says what to set instead."""
    return InvalidValue(
        f"Invalid value for 'dimensions': {asked}. The model `{model.name}` gives {model.dimensions}; set your client's dimension"
        f" to {model.dimensions} or less, or leave it out. Must be less than or equal to {model.dimensions}.",
        param="dimensions",
    )


def _headers_of(done: Computed[InferenceRequest], stages: StageSeconds) -> dict[str, str]:
    asked, model, prepared = done.asked, done.model, done.prepared
    return {
        **shared_headers(asked.model, model, prepared, done.vectors, stages),
        **prompt_header(asked.asked_prompt, prepared.inputs.input_type, model.describe()),
        **({} if done.ranges is None else {"x-gateway-quantization": done.ranges.id}),
    }


def shared_headers(asked: str, model: Model, prepared: Prepared[object], vectors: Vectors, stages: StageSeconds) -> dict[str, str]:
    """The headers of a successful reply at any door. `asked` is the model's name as the client sent it."""
    return {
        **model_header(asked, model),
        "server-timing": ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in stages.items()),
        "x-gateway-fingerprint": model.fingerprint_of(vectors),
        **({} if vectors.member is None else {"x-gateway-member": vectors.member}),
        **_long_inputs_header(prepared),
        **({} if vectors.num_hits is None else {"x-gateway-cache": f"hits={vectors.num_hits}"}),
    }


def model_header(asked: str, model: Model) -> dict[str, str]:
    return {"openai-model": _ascii_only(asked if asked in model.row.names else model.name)}


def _long_inputs_header(prepared: Prepared[object]) -> dict[str, str]:
    num_long = sum(prepared.is_long)
    treatment = "chunked" if prepared.rule == "chunk" else "shortened"
    return {"x-gateway-long-inputs": f"{treatment}={num_long}"} if num_long else {}


def _ascii_only(name: str) -> str:
    """Returns a model's name with "?" for characters that are not ASCII, as a header needs it."""
    return name.encode("ascii", errors="replace").decode()
