"""POST /v1/embeddings: every step of a request, in order."""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from litestar import Request, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.access.access_control import AccessControl
from gateway.access.admission import Admission
from gateway.access.keys.key import Caller
from gateway.access.limits.limiter import Limiter, RateLimitLease
from gateway.api import body
from gateway.api.error_handler import JSON
from gateway.api.models import allowed_model
from gateway.api.request_log import RequestRecord, record_of
from gateway.config import ServerSettings
from gateway.embedding.catalog import Catalog, Model
from gateway.embedding.embedder import Description, Inputs, Prepared, StageSeconds, Vectors
from gateway.embedding.prompt import prompt_header, resolve_input_type, resolve_instruction
from gateway.embedding.vectors import Float32, refuse_no_vector, truncate
from gateway.errors import MAX_QUOTED_CHARS, ClientError, DeadlinePassed, InvalidValue
from gateway.metrics import Metrics
from gateway.tracing import stage
from gateway.wire import request as wire_request
from gateway.wire import response as wire_response
from gateway.wire.request import EmbeddingsRequest
from gateway.wire.token_ids import other_encoding

ALWAYS = sys.maxsize
MAX_ON_LOOP_BYTES = 64 * 1024  # larger bodies are decoded, and larger replies encoded, off the event loop
BYTES_PER_NUMBER = 12  # at most, for a float in a reply

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _EmbeddingsReply:
    """A JSON response with status 200, as an ASGI application. Litestar's Response does more, and takes 20 times as long: 25
    microseconds."""

    def __init__(self, content: bytes, headers: dict[str, str]) -> None:
        self.content = content
        self.headers = {**headers, "content-type": JSON, "content-length": str(len(content))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.content, "more_body": False})


class EmbeddingsHandler:
    """Handles embedding requests. `pool` decodes large bodies and encodes large replies."""

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

    async def embeddings(self, request: Request[Caller, None, State]) -> _EmbeddingsReply:
        record = record_of(request.scope)
        self.access.refuse_spent(request.user)
        lease = record.lease = self.limiter.lease(request.user, request.scope["state"].get("on_disconnect"))
        async with lease:  # it may wait for the key's concurrency limit; meanwhile it takes no admission slot
            timeout_seconds = self.settings.request_timeout_seconds - lease.waited_seconds
            with self.admission.enter() as permit:
                encoding = body.encoding_of(request.scope)
                raw = await body.read(request.scope, request.receive, permit, self.settings)
                lease.num_bytes = len(raw)
                try:
                    async with body.CancelOnDisconnect(request.receive), asyncio.timeout(timeout_seconds):
                        if encoding:
                            raw = await self.run_in_thread(ALWAYS, body.decompress, raw, max_bytes=self.settings.max_body_bytes)
                            lease.num_bytes = len(raw)
                            permit.hold(len(raw))
                        asked = await self.run_in_thread(
                            len(raw),
                            wire_request.decode,
                            raw,
                            path_model=record.path_model,
                            default_model=self.settings.default_model,
                        )
                        return await self.answer(asked, lease, record, timeout_seconds=timeout_seconds)
                except TimeoutError:
                    raise DeadlinePassed from None
                except ClientError as error:
                    self.admission.num_bytes_ever += error.num_wasted_bytes
                    raise

    async def answer(
        self, asked: EmbeddingsRequest, lease: RateLimitLease, record: RequestRecord, *, timeout_seconds: float
    ) -> _EmbeddingsReply:
        model = allowed_model(self.catalog, asked.model, lease.caller)
        record.model, record.num_inputs = model.name, len(asked.texts)
        inputs = inputs_of(asked, lease.caller, timeout_seconds)
        await self.catalog.ensure_ready(model, asked.model, deadline=inputs.deadline)
        try:
            inputs = _with_prompt(inputs, asked, model.describe())
            _refuse_unsupported(asked, model)
            prepared = await model.embedder.prepare(inputs)
        except InvalidValue as error:
            raise error.named(asked.sent_as) from None
        model.fingerprint_of()  # raises before the charge if the fingerprint is not the pinned one
        record.num_tokens = prepared.num_tokens
        await lease.charge(prepared.num_tokens, num_cached_tokens=prepared.num_cached_tokens)
        vectors = await model.embedder.embed(prepared)
        model.fingerprint_of(vectors)  # it may have changed since
        token_counts = vectors.token_counts or prepared.token_counts  # an upstream's own, if it reported them
        record.num_hits, record.member, record.num_tokens = vectors.num_hits, vectors.member, sum(token_counts)
        record.dimensions = asked.dimensions or model.dimensions
        rows = truncate(vectors.rows, record.dimensions, normalize=asked.normalize, layer_norm=model.row.layer_norm_before_cut)
        if rows is not vectors.rows:
            refuse_no_vector(rows, inputs)  # the requested components may all be zero
        content, seconds = await self.encode(rows, asked, num_tokens=record.num_tokens)
        record.stages = {**prepared.stages, **vectors.stages, "encode": seconds}
        self.metrics.of_model(model.name).record_embedding(token_counts, record.stages)
        self.access.record(
            lease.caller, model=model.name, num_inputs=len(asked.texts),
            num_tokens=record.num_tokens, num_cached_tokens=prepared.num_cached_tokens,
        )  # fmt: skip
        return _EmbeddingsReply(content, _headers_of(asked, model, prepared, vectors, record.stages))

    async def encode(self, rows: Float32, asked: EmbeddingsRequest, *, num_tokens: int) -> tuple[bytes, float]:
        """Returns the reply's body, and the seconds it took to encode."""
        started = time.perf_counter()
        content = await self.run_in_thread(
            rows.size * BYTES_PER_NUMBER, wire_response.encode, rows,
            model=asked.model, encoding_format=asked.encoding_format, num_tokens=num_tokens,
        )  # fmt: skip
        ended = time.perf_counter()
        stage("encode", started, ended)
        return content, ended - started

    async def run_in_thread(
        self, num_bytes: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs `work` on the event loop if it is small, else in a thread."""
        if num_bytes <= MAX_ON_LOOP_BYTES:
            return work(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def route(self) -> HTTPRouteHandler:
        async def create_embeddings(request: Request[Caller, None, State]) -> ASGIApp:
            return await self.embeddings(request)

        return post("/v1/embeddings", status_code=200)(create_embeddings)


def inputs_of(asked: EmbeddingsRequest, caller: Caller, timeout_seconds: float) -> Inputs:
    return Inputs(
        texts=asked.texts,
        is_array=asked.is_array,
        caller=caller.public_id,
        deadline=time.monotonic() + timeout_seconds,
        long_input=asked.long_input,
        normalize=asked.normalize,
    )


def _with_prompt(inputs: Inputs, asked: EmbeddingsRequest, about: Description) -> Inputs:
    """Returns the inputs with the model's own name of the requested prompt. Raises InvalidValue if the model has no such prompt."""
    if asked.input_type is None and asked.instruction is None:
        return inputs
    name = resolve_input_type(asked.input_type, about)
    return replace(inputs, input_type=resolve_instruction(asked.instruction, name, about), instruction=asked.instruction)


def _refuse_unsupported(asked: EmbeddingsRequest, model: Model) -> None:
    """Checks the request against the model.

    Raises InvalidValue for too many dimensions, a `truncate_prompt_tokens` other than the model's length, and token ids in an
    encoding that the gateway cannot read.
    """
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


def _headers_of(
    asked: EmbeddingsRequest, model: Model, prepared: Prepared[object], vectors: Vectors, stages: StageSeconds
) -> dict[str, str]:
    return {
        "openai-model": _ascii_only(asked.model if asked.model in model.row.names else model.name),
        "server-timing": ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in stages.items()),
        "x-gateway-fingerprint": model.fingerprint_of(vectors),
        **({} if vectors.member is None else {"x-gateway-member": vectors.member}),
        **_long_inputs_header(prepared),
        **prompt_header(asked.input_type or asked.instruction, prepared.inputs.input_type, model.describe()),
        **({} if vectors.num_hits is None else {"x-gateway-cache": f"hits={vectors.num_hits}"}),
    }


def _long_inputs_header(prepared: Prepared[object]) -> dict[str, Any]:
    num_long = sum(prepared.is_long)
    treatment = "chunked" if prepared.rule == "chunk" else "shortened"
    return {"x-gateway-long-inputs": f"{treatment}={num_long}"} if num_long else {}


def _ascii_only(name: str) -> str:
    """Returns a model's name with "?" for characters that are not ASCII, as a header needs it."""
    return name.encode("ascii", errors="replace").decode()
