"""The steps that the requests of all doors share, in order: access, limits, admission, body, deadline, model, vectors, reply."""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from litestar import Request, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.access.access_control import RequestAccess
from gateway.access.admission import Admission
from gateway.access.keys.key import Caller
from gateway.access.limits.lease import LeaseSource
from gateway.api import body
from gateway.api.authentication import authenticate
from gateway.api.door import AskedT, Computed, Door, JSONReply, RequestContext, RequestT
from gateway.api.inference_headers import headers_of
from gateway.api.models import allowed_model
from gateway.api.request_log import record_of
from gateway.config import ServerSettings
from gateway.embedding.catalog import Catalog, Model
from gateway.embedding.embedder import Inputs, ModelKind, Prepared, Vectors
from gateway.errors import ClientError, DeadlinePassed, WrongModelKind
from gateway.metrics import Metrics
from gateway.tracing import stage

ALWAYS = sys.maxsize
MAX_ON_LOOP_BYTES = 64 * 1024  # larger bodies are decoded, and larger replies encoded, off the event loop
BYTES_PER_NUMBER = 12  # at most, for a float in a reply

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class InferenceHandler:
    """Takes requests of every door along the same road. `pool` decodes large bodies and encodes large replies."""

    def __init__(  # noqa: PLR0913 - one for each step
        self,
        *,
        access: RequestAccess,
        catalog: Catalog,
        admission: Admission,
        limiter: LeaseSource,
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
        """Takes one request along the road. Returns the reply, an ASGI application.

        Raises a GatewayError of the step at which the request ends; DeadlinePassed after `request_timeout_seconds`; ClientGone.
        """
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
                    with body.CancelScope(scope, receive, num_bytes=len(raw), timeout_seconds=timeout_seconds):
                        if encoding:
                            raw = await self.run_in_thread(ALWAYS, body.decompress, raw, max_bytes=self.settings.max_body_bytes)
                            lease.num_bytes = len(raw)
                            permit.hold(len(raw))
                        default_model = self.default_model_of(door, caller) if record.path_model is None else None
                        asked = await self.run_in_thread(
                            len(raw), door.decode, raw, path_model=record.path_model, default_model=default_model
                        )
                        context = RequestContext(lease, record, time.monotonic() + timeout_seconds, list(scope["headers"]))
                        try:
                            return await door.answer(asked, context)
                        finally:
                            context.release()
                except TimeoutError:
                    raise DeadlinePassed from None
                except ClientError as error:
                    self.admission.num_bytes_ever += error.num_wasted_bytes
                    raise

    def default_model_of(self, door: Door[AskedT], caller: Caller) -> str | None:
        """The name of the model of a body that names none; None if there is no such model."""
        return self.settings.default_model if door.default_model is None else door.default_model(caller)

    async def find_model(self, name: str, kind: ModelKind | None, context: RequestContext, *, num_inputs: int) -> Model:
        """Returns the model that serves `name`, loaded. Raises UnknownModel, ModelLoading, and WrongModelKind for another kind; any
        kind will do if `kind` is None."""
        model = allowed_model(self.catalog, name, context.caller)
        context.record.model, context.record.num_inputs = model.name, num_inputs
        context.uses.append(await self.catalog.acquire(model, name, deadline=context.deadline))
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

    async def compute(self, model: Model, prepared: Prepared[object], context: RequestContext) -> tuple[Vectors, list[int]]:
        """Computes the rows. Returns them, and the tokens of each input: an upstream's own count, if it reported one."""
        vectors = await model.embedder.embed(prepared)
        model.fingerprint_of(vectors)  # it may have changed since
        token_counts = vectors.token_counts or prepared.token_counts
        record = context.record
        record.num_hits, record.member, record.num_tokens = vectors.num_hits, vectors.member, sum(token_counts)
        return vectors, token_counts

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
            num_tokens=done.num_tokens, num_cached_tokens=done.num_cached_tokens,
        )  # fmt: skip
        return JSONReply(content, headers_of(done, record.stages))

    async def run_in_thread(
        self, num_bytes: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs `work` on the event loop if it is small, else in a thread."""
        if num_bytes <= MAX_ON_LOOP_BYTES:
            return work(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Ends the threads once they are idle. Work that has not begun is cancelled."""
        self.pool.shutdown(wait=False, cancel_futures=True)
