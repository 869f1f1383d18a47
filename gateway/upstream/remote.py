"""A model on another server, as an Embedder."""

import asyncio
import time
from typing import Any

from gateway.config import LimitSettings, secret_value
from gateway.embedding.backend import Context
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.embedding.fingerprint import Fingerprint, digest
from gateway.embedding.prompt import instruction_format_of
from gateway.errors import (
    ConfigurationError,
    DeadlinePassed,
    InputTooLong,
    InvalidValue,
    ModelLoading,
    OperatorError,
    RequestTooLong,
)
from gateway.log import get_logger
from gateway.upstream import failures
from gateway.upstream.breaker import Breaker, Rules
from gateway.upstream.connection import Connection, Route
from gateway.upstream.dialect import Dialect, Limits
from gateway.upstream.endpoint import Endpoint, Endpoints
from gateway.upstream.estimate import estimated_tokens
from gateway.upstream.exchange import Exchange
from gateway.upstream.failures import Failed, Failure, Subject
from gateway.upstream.settings import AnySettings
from gateway.upstream.speaker import Speaker

PROBE = "Which vectors are these?"
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.25, 4.0  # between tries to reach an upstream that is away at the start
DEFAULT_MAX_TOKENS = 8192
MAX_ON_LOOP_CHARS = 256 * 1024

log = get_logger()


class Remote:
    """Follows Embedder, over the servers of one row, which all have the very same model."""

    def __init__(self, settings: AnySettings, dialect: Dialect, context: Context) -> None:
        self.settings = settings
        self.dialect = dialect
        self.name = context.name
        self.limits: LimitSettings = context.limits
        self.model: str = getattr(settings, "model", None) or self.name
        self.metrics = context.metrics.of_upstream()
        rules = Rules(max_failures=settings.breaker_failures, open_seconds=settings.breaker_seconds)
        query = getattr(settings, "query", {})
        self.endpoints = Endpoints([Endpoint(each, dialect.path, query, Breaker(rules)) for each in settings.addresses])
        remedy = dialect.remedy.format(model=self.model)
        subject = Subject(self.name, self.model, remedy, settings.max_tokens or DEFAULT_MAX_TOKENS)
        self.exchange = Exchange(self.endpoints, self.metrics, subject, may_retry=settings.retry)
        self.state = Health("loading", "not started")
        self.speaker: Speaker | None = None

    async def start(self) -> None:
        """Returns once the upstream has answered a probe, however long it is away; until then `health` tells why.

        Raises OperatorError for what waiting does not mend: a secret or a file that is missing, a refused key, a model that is not
        there.
        """
        connection = await Connection.opened(self.route())
        self.speaker = Speaker(self.settings, self.dialect, connection=connection, exchange=self.exchange, metrics=self.metrics)
        pause = FIRST_PAUSE_SECONDS
        while (failure := await self.probed(self.speaker)) is not None:
            if failure.is_lasting:
                self.state = Health("failed", failure.error.message)
                raise OperatorError(f"models[{self.name}]: {failure.error.message}")
            if self.state.detail != failure.error.message:
                log.warning("upstream_is_away", model=self.name, reason=failure.error.message)
            self.state = Health("loading", failure.error.message, category=failure.error.outcome)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)
        self.state = Health("ready")

    def route(self) -> Route:
        settings = self.settings
        headers = {
            name: value if isinstance(value, str) else secret(value, name, self.name) for name, value in settings.headers.items()
        }
        if settings.key is not None:
            key = secret(settings.key, "key", self.name)
            headers[settings.key_header] = f"Bearer {key}" if settings.key_header.lower() == "authorization" else key
        credentials = settings.proxy_credentials
        return Route(
            headers,
            settings.connect_timeout_seconds,
            settings.read_timeout_seconds,
            settings.max_connections,
            settings.proxy,
            secret(credentials, "proxy_credentials", self.name) if credentials else None,
            settings.ca_file,
        )

    @property
    def probe_seconds(self) -> float:
        """For each server's limits, and two tries. A read's limit ends neither what begins with a 100 nor a byte now and then."""
        one = self.settings.connect_timeout_seconds + self.settings.read_timeout_seconds
        return one * (len(self.endpoints.endpoints) + 2)

    async def probed(self, speaker: Speaker) -> Failure | None:
        """Learns what the upstream is, or why not. Its failures leave no breaker open: nobody waits for this upstream yet."""
        probe = Inputs([PROBE], is_array=False, caller="", deadline=0)
        speaker.dimensions, speaker.their_fingerprint = self.settings.dimensions, None
        try:
            async with asyncio.timeout(self.probe_seconds):
                limits = await speaker.told_limits()
                vectors = await speaker.embedded(probe, [estimated_tokens(PROBE)], self.settings.long_input)
        except Failed as failed:
            return failed.failure
        except TimeoutError:
            return failures.of_broken("timeout", speaker.subject)
        finally:
            for endpoint in self.endpoints.endpoints:
                endpoint.breaker.close()
        speaker.dimensions = vectors.rows.shape[1]
        self.description = self.described(limits, speaker.dimensions, speaker.their_fingerprint)
        return None

    async def reach(self, endpoint: Endpoint) -> str:
        """Asks this address alone for one vector, and tells what it gave. Raises OperatorError with its failure."""
        exchange = Exchange(Endpoints([endpoint]), self.metrics, self.exchange.subject, may_retry=False)
        connection = await Connection.opened(self.route())
        speaker = Speaker(self.settings, self.dialect, connection=connection, exchange=exchange, metrics=self.metrics)
        try:
            failure = await self.probed(speaker)
        finally:
            await connection.close()
        if failure is not None:
            raise OperatorError(f"{failure.outcome}: {failure.error.message}")
        return f"{self.description.dimensions} dimensions"

    def described(self, limits: Limits, dimensions: int, their_fingerprint: str | None) -> Description:
        return Description(
            backend=self.dialect.name,
            source=self.model,
            dimensions=dimensions,
            max_tokens=self.settings.max_tokens or limits.max_tokens or DEFAULT_MAX_TOKENS,
            long_input=self.settings.long_input,
            fingerprint=self.fingerprint(limits, dimensions, their_fingerprint),
            runtime="upstream",
            device="unknown",
            precision="unknown",
            created=int(time.time()),
            prompts=tuple(name for name, text in self.settings.prompts.items() if text),
            takes_instruction=bool(self.settings.instruction_format or instruction_format_of(self.settings.prompts)),
        )

    def fingerprint(self, limits: Limits, dimensions: int, theirs: str | None) -> str:
        """That of another gateway where nothing of ours changes its vectors; else of all that is known of them."""
        extra = getattr(self.settings, "extra_body", {})
        if theirs and not (self.settings.prompts or self.settings.dimensions or extra):
            return theirs
        fingerprint = Fingerprint(
            weights=digest(self.dialect.name, self.model, theirs, limits.identity, dimensions),
            tokenizer=digest(self.dialect.name, self.model),
            pooling=digest(extra),
            prompts=digest(self.settings.prompts),
            long_input=digest(self.settings.long_input),
            runtime=f"{self.dialect.name}-unknown",
        )
        return str(fingerprint)

    async def prepare(self, inputs: Inputs) -> Prepared:
        """The counts are estimates; `embed` tells what the upstream counted."""
        rule = inputs.long_input or self.settings.long_input
        if rule not in self.dialect.rules:
            known = " and ".join(self.dialect.rules)
            raise InvalidValue(
                f"Invalid value for 'long_input': this model is on another server, and knows {known} but not {rule}.",
                param="long_input",
            )
        if sum(map(len, inputs.texts)) > MAX_ON_LOOP_CHARS:
            counts = await asyncio.to_thread(list, map(estimated_tokens, inputs.texts))
        else:
            counts = [estimated_tokens(text) for text in inputs.texts]
        for index, count in enumerate(counts):
            if count > self.limits.max_input_tokens:
                raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)
        prepared = Prepared(inputs, counts, [False] * len(counts), rule)
        if prepared.num_tokens > self.limits.max_request_tokens:
            raise RequestTooLong(str(prepared.num_tokens), self.limits.max_request_tokens)
        return prepared

    async def embed(self, prepared: Prepared) -> Vectors:
        if self.speaker is None:
            raise ModelLoading(self.name)
        started = time.perf_counter()
        inputs = prepared.inputs
        try:
            async with asyncio.timeout(inputs.deadline - time.monotonic()):
                vectors = await self.speaker.embedded(inputs, prepared.token_counts, prepared.rule)
        except TimeoutError:
            raise DeadlinePassed from None
        except Failed as failed:
            log.info("upstream_failed", model=self.name, outcome=failed.failure.outcome, reason=failed.failure.error.message)
            raise failed.failure.error from None
        return Vectors(vectors.rows, {"upstream": time.perf_counter() - started}, token_counts=vectors.token_counts)

    def describe(self) -> Description:
        return self.description

    def health(self) -> Health:
        if self.state.state == "ready" and not self.endpoints.is_up:
            return Health("ready", "left alone after failures", is_available=False)
        return self.state

    async def close(self) -> None:
        self.state = Health("failed", "closed")
        if self.speaker is not None:
            await self.speaker.connection.close()


def secret(place: Any, setting: str, name: str) -> str:
    """Raises OperatorError, which never holds the secret."""
    try:
        value = secret_value(place).strip()
    except ConfigurationError as error:
        raise OperatorError(f"models[{name}].{setting}: {error}") from None
    if not value or not value.isprintable() or not (value.isascii() or setting == "proxy_credentials"):
        raise OperatorError(f"models[{name}].{setting}: what is there cannot be sent in a header")
    return value
