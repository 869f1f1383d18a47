"""A model on another server as an Embedder: measures the server, verifies its vectors, and embeds through it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

from gateway.background import BackgroundTask
from gateway.backoff import Backoff
from gateway.config import LongInput
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.errors import (
    DeadlinePassed,
    InputTooLong,
    InvalidValue,
    ModelLoading,
    OperatorError,
    RequestTooLong,
)
from gateway.log import get_logger
from gateway.upstream import failures
from gateway.upstream.breaker import Breaker, BreakerRules
from gateway.upstream.client import UpstreamClient
from gateway.upstream.dialect import SAME, Dialect, ServerApi
from gateway.upstream.dispatch import Dispatcher
from gateway.upstream.estimate import estimated_tokens
from gateway.upstream.failures import AttemptFailed, Failure, UpstreamInfo
from gateway.upstream.identity import DEFAULT_MAX_TOKENS, RowIdentity
from gateway.upstream.load_balancing import Endpoint, Endpoints
from gateway.upstream.measure import Measurement, Prober
from gateway.upstream.probe import TEXTS
from gateway.upstream.read_length import Reach
from gateway.upstream.request_limits import RequestLimits
from gateway.upstream.secret_filter import SecretFilter
from gateway.upstream.settings import AnySettings
from gateway.upstream.splitter import RequestSplitter
from gateway.upstream.transport import Transport, TransportOptions, tls
from gateway.upstream.transport_options import transport_options
from gateway.upstream.truncation import FIRST_WORDS
from gateway.upstream.vector_signature import signature_of
from gateway.upstream.vector_space import Space, Spaces
from gateway.upstream.watch import Watch

STARTS = Backoff(first_seconds=0.25, max_seconds=4.0)  # between tries to reach an upstream that is unavailable at the start
MAX_ON_LOOP_CHARS = 256 * 1024
MAX_BEGINNINGS = 3  # tries of a request while the server's model changes
MEASURING_REQUESTS = 10  # of a measurement, retries included: bounds one that neither ends nor fails

log = get_logger()


class UpstreamEmbedder:
    """Follows Embedder, over the endpoints of one row, which must all give the same vectors."""

    def __init__(self, settings: AnySettings, dialect: Dialect, context: BackendContext) -> None:
        self.settings = settings
        self.dialect = dialect
        self.name = context.name
        self.limits = context.limits
        self.model: str = getattr(settings, "model", None) or self.name
        self.identity = RowIdentity(settings, dialect, self.model)
        self.model_metrics = context.metrics
        self.metrics = context.metrics.of_upstream()
        self.spaces: Spaces = context.shared.setdefault("upstream-spaces", Spaces())
        self.clock: Callable[[], float] = context.clock
        rules = BreakerRules(max_failures=settings.breaker_failures, open_seconds=settings.breaker_seconds)
        query = getattr(settings, "query", {})
        self.endpoints = Endpoints([Endpoint(each, dialect.path, query, Breaker(rules, self.clock)) for each in settings.addresses])
        remedy = dialect.remedy.format(model=self.model)
        self.secrets: SecretFilter = context.shared.setdefault("upstream-secrets", SecretFilter())
        max_tokens = settings.max_tokens or DEFAULT_MAX_TOKENS
        operation = "rerank" if dialect.kind == "reranker" else "embeddings"
        upstream = UpstreamInfo(self.name, self.model, remedy, max_tokens, self.secrets, operation)
        self.request_limits = RequestLimits(
            self.name, settings, default_max_inputs=dialect.max_inputs, metrics=self.metrics, clock=self.clock
        )
        self.dispatcher = Dispatcher(self.endpoints, self.metrics, upstream, may_retry=settings.retry)
        self.dispatcher.on_return = partial(self.request_limits.forget, "its server could not be reached and is back")
        self.state = Health("loading", "not started")
        self.client: UpstreamClient | None = None
        self.watch: Watch | None = None
        self.lengths: Reach | None = None
        self.described: tuple[tuple[object, ...], Description] | None = None
        self.background: BackgroundTask | None = None
        self.raw: ServerApi | None = None  # the API that gives unnormalised vectors, once it was looked for
        self.is_raw_known = False

    async def start(self) -> None:
        """Measures the upstream, and waits for it however long it is unavailable; until then `health` says why.

        Raises OperatorError if waiting cannot help: a secret or a file is missing, the key is refused, the model is missing, or the
        server gives no embeddings.
        """
        connection = await Transport.open(self.route())
        await self.stop()
        self.client = self.client_over(connection, self.dispatcher)
        prober = Prober(self.client)
        self.watch = self.dispatcher.guard = Watch(
            self.endpoints, prober, self.spaces, settle=self.settle, probe_seconds=self.settings.probe_seconds,
            patience_seconds=self.patience_seconds, metrics=self.metrics, clock=self.clock,
        )  # fmt: skip
        self.lengths = Reach(self.endpoints, prober, lambda: self.space)
        num_failures = 0
        while (failure := await self.watch.begin()) is not None:
            if failure.is_lasting:
                self.state = Health("failed", failure.error.message)
                raise OperatorError(f"models[{self.name}]: {failure.error.message}", category=_category_of(failure))
            if self.state.detail != failure.error.message:
                log.warning("upstream_is_unavailable", model=self.name, reason=failure.error.message)
            self.state = Health("loading", failure.error.message, category=failure.error.outcome)
            num_failures += 1
            await asyncio.sleep(STARTS.pause_seconds(num_failures))
        with suppress(AttemptFailed):  # if this fails, the first request that needs it measures
            await self.lengths.measure_truncation(FIRST_WORDS)
        self.state = Health("ready")
        self.background = BackgroundTask(f"watch-{self.name}", self.watch.run)
        self.background.start()

    def client_over(self, connection: Transport, dispatcher: Dispatcher) -> UpstreamClient:
        return UpstreamClient(
            self.settings,
            self.dialect,
            connection=connection,
            dispatcher=dispatcher,
            metrics=self.metrics,
            limits=self.request_limits,
        )

    @property
    def space(self) -> Space:
        if self.watch is None or self.watch.space is None:
            raise ModelLoading(self.name)
        return self.watch.space

    def check(self) -> None:
        """Sends nothing. Raises OperatorError if a secret or the file of certificate authorities is missing here."""
        tls(self.route().ca_file)

    def route(self) -> TransportOptions:
        return transport_options(self.settings, self.name, self.secrets)

    @property
    def patience_seconds(self) -> float:
        """Bounds a measurement. The read timeout alone does not end a reply of interim 100s, or of a byte now and then."""
        return MEASURING_REQUESTS * (self.settings.connect_timeout_seconds + self.settings.read_timeout_seconds)

    def settle(self, measured: Measurement) -> Space:
        """Applies a measurement to the row: at the start, and when its server's model changed. Returns the space of its vectors."""
        if self.client is None:
            raise ModelLoading(self.name)
        dimensions, reported = measured.known.dimensions or 0, measured.reported
        self.client.known, self.client.has_given_logits = replace(measured.known), False
        self.request_limits.restart(reported_max_inputs=reported.max_inputs)
        self.is_raw_known = (
            self.dialect.is_unit or self.dialect.honours_normalize or not measured.is_unit or bool(measured.known.theirs)
        )
        self.raw = SAME if self.is_raw_known and not self.dialect.is_unit else None
        names = [
            self.identity.fingerprint(reported, measured.known, signature) for signature in signature_of(measured.reference).alike
        ]
        space: Space = self.spaces.join_or_open(self.identity.of_row(reported), measured.reference, tuple(names))
        self.description = self.identity.describe(reported, dimensions)
        if self.lengths is not None:
            self.lengths.forget()
        if self.state.state == "ready":
            self.publish_space(space)
        return space

    def publish_space(self, space: Space) -> None:
        """Publishes the fingerprint in the metrics. Members of a group do not: their metrics are the group's."""
        about = replace(self.description, fingerprint=space.fingerprint)
        if self.model_metrics.name == self.name:
            self.model_metrics.record_load(
                source=about.source, runtime=about.runtime, device=about.device, precision=about.precision,
                dimensions=str(about.dimensions), fingerprint=about.fingerprint, fidelity=None,
            )  # fmt: skip

    async def reach(self, endpoint: Endpoint) -> str:
        """Embeds or scores one text at this endpoint alone. Returns in words what it gave. Raises OperatorError if it fails."""
        dispatcher = Dispatcher(Endpoints([endpoint]), self.metrics, self.dispatcher.upstream, may_retry=False)
        connection = await Transport.open(self.route())
        client = self.client_over(connection, dispatcher)
        try:
            async with asyncio.timeout(self.patience_seconds):
                await client.fetch_limits(endpoint) if self.dialect.requires_info else None
                own = await Prober(client).find_own_api(endpoint)
                found = await client.sample(endpoint, [TEXTS[0]], api=own)
        except AttemptFailed as failed:
            raise OperatorError(f"{failed.failure.outcome}: {failed.failure.error.message}") from None
        except TimeoutError:
            raise OperatorError(f"timeout: {failures.of_transport_error('timeout', client.upstream).error.message}") from None
        finally:
            await connection.close()
        return "a reranker" if client.is_reranker else f"{found.rows.shape[1]} dimensions"

    async def verify(self) -> None:
        """Follows Verified; mostly it does nothing. Raises UpstreamError or UpstreamUnavailable if no probe can verify now."""
        if self.watch is None:
            raise ModelLoading(self.name)
        if self.watch.is_unsure:
            try:
                await self.watch.verify()
            except AttemptFailed as failed:
                log.info("upstream_unproven", model=self.name, outcome=failed.failure.outcome, reason=failed.failure.error.message)
                raise failed.failure.error from None

    async def prepare(self, inputs: Inputs) -> Prepared[None]:
        """Estimates token counts; `embed` returns what the upstream counted."""
        if self.watch is None or self.lengths is None:
            raise ModelLoading(self.name)
        if inputs.query is None and self.dialect.kind == "reranker":
            raise OperatorError("a reranker compares texts with a query, and there is none")
        rule = inputs.long_input or self.settings.long_input
        if sum(map(len, inputs.texts)) > MAX_ON_LOOP_CHARS:
            counts = await asyncio.to_thread(list, map(estimated_tokens, inputs.texts))
        else:
            counts = [estimated_tokens(text) for text in inputs.texts]
        if inputs.query is not None:  # a reranker reads it with each document
            num_query_tokens = estimated_tokens(inputs.query)
            if num_query_tokens >= self.limits.max_input_tokens:
                raise InputTooLong("query", self.limits.max_input_tokens)
            counts = [num_query_tokens + count for count in counts]
        for index, count in enumerate(counts):
            if count > self.limits.max_input_tokens:
                raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)
        prepared: Prepared[None] = Prepared(inputs, counts, [self.is_long(count, rule) for count in counts], rule)
        if prepared.num_tokens > self.limits.max_request_tokens:
            raise RequestTooLong(str(prepared.num_tokens), self.limits.max_request_tokens)
        async with self.passing_failures(inputs):
            await self.refuse_unknown(inputs, rule)
        _refuse_cut_documents(inputs, counts)
        return prepared

    def is_long(self, count: int, rule: LongInput) -> bool:
        """Whether the server truncates a text, as far as an estimated count shows it."""
        return rule == "end" and self.lengths is not None and self.lengths.is_cutting and count > self.lengths.max_tokens

    async def refuse_unknown(self, inputs: Inputs, rule: LongInput) -> None:
        """Raises InvalidValue if this server does not know the rule, or cannot give the unnormalised vectors asked for."""
        if inputs.instruction is not None and self.dialect.kind == "reranker":  # a group takes one if its first member does
            raise InvalidValue("Invalid value for 'instruction': this model takes no instruction.", param="instruction")
        if inputs.token_ids is not None:
            raise InvalidValue(
                "Invalid value for 'input': this model is on another server, and takes texts, not ids of its own tokens.",
                param="input",
            )
        if not inputs.normalize and await self.find_raw_api() is None:
            raise InvalidValue(
                "Invalid value for 'normalize': this model is on another server, which gives vectors of length 1 only.",
                param="normalize",
            )
        if rule in self.dialect.rules or self.lengths is None:
            return
        if rule == "end":
            await self.lengths.cover(self.with_prompts(inputs), inputs.query)
            if self.lengths.keeps_the_beginning:
                return
        known = " and ".join(self.dialect.rules)
        raise InvalidValue(
            f"Invalid value for 'long_input': this model is on another server, which for long texts knows {known} but not {rule}.",
            param="long_input",
        )

    async def find_raw_api(self) -> ServerApi | None:
        """Looks once for the API that gives unnormalised vectors. Returns None if there is none."""
        if not self.is_raw_known and self.watch is not None and self.client is not None:
            self.raw = await self.watch.prober.find_raw_api(self.endpoints.used, self.space.reference)
            self.is_raw_known = True
        if self.raw is not None and self.client is not None:
            self.client.known.raw = self.raw
        return self.raw

    def with_prompts(self, inputs: Inputs) -> list[str]:
        return self.client.with_prompts(inputs) if self.client is not None else inputs.texts

    async def embed(self, prepared: Prepared[None]) -> Vectors:
        """Starts again if the server's model changes meanwhile: no reply has vectors of two models."""
        if self.client is None:
            raise ModelLoading(self.name)
        started = time.perf_counter()
        async with self.passing_failures(prepared.inputs):
            for _ in range(MAX_BEGINNINGS):
                await self.verify()
                space = self.space
                try:
                    vectors = await self.embed_checked(prepared)
                except AttemptFailed as failed:
                    if failed.failure.is_other and self.space is not space:  # a probe has just found the change
                        continue
                    raise
                if self.space is space:
                    stages = {"upstream": time.perf_counter() - started}
                    return Vectors(vectors.rows, stages, token_counts=vectors.token_counts, fingerprint=space.fingerprint)
            raise AttemptFailed(failures.of_unproven("was changed while it was asked", self.client.upstream))

    async def embed_checked(self, prepared: Prepared[None]) -> Vectors:
        """Raises AttemptFailed, or InputTooLong if the server would silently truncate an input."""
        if self.client is None or self.lengths is None:
            raise ModelLoading(self.name)
        if prepared.rule != "end":
            texts, query = self.with_prompts(prepared.inputs), prepared.inputs.query
            await self.lengths.cover(texts, query)
            if query is not None and await self.lengths.cuts_query(query, texts):
                raise InputTooLong("query", self.lengths.max_tokens)
            if (index := await self.lengths.first_cut(texts, query)) is not None:
                raise InputTooLong(prepared.inputs.where(index), self.lengths.max_tokens)
        return await RequestSplitter(self.client).embed(prepared.inputs, prepared.token_counts, prepared.rule)

    @asynccontextmanager
    async def passing_failures(self, inputs: Inputs) -> AsyncIterator[None]:
        """Bounds its body by the request's deadline, and translates AttemptFailed into the error for the client."""
        try:
            async with asyncio.timeout(inputs.deadline - time.monotonic()):
                yield
        except TimeoutError:
            raise DeadlinePassed from None
        except AttemptFailed as failed:
            failure = failed.failure
            code = {"code": failure.code} if failure.code else {}
            log.info("upstream_failed", model=self.name, outcome=failure.outcome, reason=failure.error.message, **code)
            raise failure.error from None

    def describe(self) -> Description:
        """A new copy only if something changed: a request asks five times, and a copy takes 4 microseconds."""
        about, space = self.description, self.space
        cut = self.lengths.max_tokens if self.lengths is not None and self.lengths.is_cutting else about.max_tokens
        made_of = about, space.fingerprint, space.alike, space.scope, min(about.max_tokens, cut)
        if self.described is None or self.described[0] != made_of:
            _, fingerprint, alike, scope, max_tokens = made_of
            self.described = made_of, replace(about, fingerprint=fingerprint, alike=alike, scope=scope, max_tokens=max_tokens)
        return self.described[1]

    def health(self) -> Health:
        """Names the watch if it died: then requests wait for their probes, and unused endpoints stay unused."""
        has_died = self.background is not None and self.background.death is not None
        learned = {str(name): value for name, value in self.request_limits.current.items()}
        return replace(self.condition, learned=learned, dead_parts=(f"watch-{self.name}",) if has_died else ())

    @property
    def condition(self) -> Health:
        if self.state.state != "ready" or self.watch is None:
            return self.state
        if not self.endpoints.used:
            return Health("ready", self.watch.unproven.error.message, is_available=False, trouble="vectors_unproven")
        if not self.endpoints.is_up:
            return Health("ready", "cooling down after failures", is_available=False)
        if others := [endpoint.label for endpoint in self.endpoints.endpoints if endpoint.proof in {"other", "unsteady"}]:
            return Health("ready", f"not used, as their vectors are others: {', '.join(others)}", trouble="address_differs")
        return self.state

    async def close(self) -> None:
        self.state = Health("failed", "closed")
        await self.stop()

    async def stop(self) -> None:
        """Ends what `start` began."""
        if self.background is not None:
            await self.background.close()
        if self.watch is not None:
            await self.watch.close()
        if self.lengths is not None:
            await self.lengths.close()
        if self.client is not None:
            await self.client.connection.close()


def _category_of(failure: Failure) -> str:
    """Why the row cannot be loaded, in a word fit for clients: `refused` is our key, `missing` the model."""
    return failure.outcome


def _refuse_cut_documents(inputs: Inputs, counts: list[int]) -> None:
    """Raises InvalidValue for `max_document_tokens` that would cut a document, by its estimate: no server is asked to."""
    most = inputs.max_document_tokens
    index = None if most is None else next((index for index, count in enumerate(counts) if count > most), None)
    if index is not None:
        raise InvalidValue(
            f"Invalid value for 'max_tokens_per_doc': '{inputs.where(index)}' may have more than {most} tokens with the query, and"
            " this model is on another server, which cuts at its own length. Leave it out, or shorten the document.",
            param="max_tokens_per_doc",
        )
