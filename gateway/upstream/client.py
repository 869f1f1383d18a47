"""Asks an upstream once, in its own words, and makes vectors of what it answers."""

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from yarl import URL

from gateway.config import LongInput
from gateway.embedding.embedder import Inputs, Vectors
from gateway.embedding.prompt import INSTRUCTION, instruction_format_of
from gateway.embedding.vectors import Float32, scale_to_unit
from gateway.log import get_logger
from gateway.metrics import UpstreamMetrics
from gateway.upstream import failures
from gateway.upstream.dialect import Dialect, UpstreamLimits, UpstreamQuery
from gateway.upstream.dispatch import Dispatcher, UpstreamRequest
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.error_body import read_error
from gateway.upstream.estimate import apportion, estimated_tokens, is_honest
from gateway.upstream.failures import AttemptFailed, UpstreamInfo
from gateway.upstream.raw import SAME, Door
from gateway.upstream.request_limits import RequestLimits
from gateway.upstream.settings import AnySettings
from gateway.upstream.transport import Transport, TransportError, UpstreamResponse
from gateway.upstream.validation import InvalidResponse, NotANumber, OtherDimensions, ParsedResponse, array

OK = 200
MAX_DIMENSIONS = 65_536  # of a reply before the dimensions are known
# A number in JSON is at most 24 characters and a separator; rows and the reply have words around them.
BYTES_PER_NUMBER, BYTES_PER_ROW, BYTES_PER_REPLY = 32, 512, 64 * 1024
MAX_INFO_BYTES = 4 * 1024 * 1024  # a list of all models of a hosted API
MAX_ON_LOOP_BYTES = 64 * 1024

CLOSE = {"connection": "close"}

encode = msgspec.json.Encoder().encode
log = get_logger()


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer to a probe: `rows` as they came, whether as bytes, and the fingerprint that another gateway told with them."""

    rows: Float32
    is_bytes: bool
    theirs: str | None


@dataclass(slots=True)
class Known:
    """What is known of an upstream by now. `theirs` is another gateway's fingerprint, `raw` where unnormalised vectors are had."""

    dimensions: int | None = None
    theirs: str | None = None
    as_base64: bool = False
    raw: Door = field(default_factory=lambda: SAME)


ReadReply = Callable[[bytes, Mapping[str, str]], ParsedResponse]


class RenderedRequest(NamedTuple):
    """A call in the words of a door."""

    body: dict[str, Any]
    url: Callable[[Endpoint], URL]
    read: ReadReply


class UpstreamClient:
    """`known` is replaced when the model there changes; `limits` are what one request may hold."""

    def __init__(  # noqa: PLR0913 - what it speaks to, how, and what it learns
        self,
        settings: AnySettings,
        dialect: Dialect,
        *,
        connection: Transport,
        exchange: Dispatcher,
        metrics: UpstreamMetrics,
        limits: RequestLimits,
    ) -> None:
        self.settings = settings
        self.dialect = dialect
        self.connection = connection
        self.exchange = exchange
        self.upstream: UpstreamInfo = exchange.upstream
        self.metrics = metrics
        self.limits = limits
        self.known = Known(settings.dimensions, None, dialect.knows_base64)

    @property
    def as_base64(self) -> bool:
        return self.known.as_base64

    async def fetch_limits(self, endpoint: Endpoint) -> UpstreamLimits:
        """What the server at one address tells of itself. Raises AttemptFailed."""
        if self.dialect.info_path is None or self.dialect.read_info is None:
            return UpstreamLimits()
        try:
            answer = await self.connection.get(endpoint.beside(self.dialect.info_path), max_bytes=MAX_INFO_BYTES)
            if answer.status != OK:
                raise AttemptFailed(failures.of_answer(answer, Inputs([], is_array=False, caller="", deadline=0), self.upstream))
            return self.dialect.read_info(answer.content, self.upstream.model)
        except TransportError as broken:
            raise AttemptFailed(failures.of_transport_error(broken.kind, self.upstream)) from None
        except InvalidResponse as nonsense:
            raise AttemptFailed(failures.of_invalid_response(str(nonsense), self.upstream)) from None

    async def sample(
        self,
        endpoint: Endpoint,
        texts: list[str],
        *,
        as_base64: bool = False,
        door: Door | None = None,
        is_known_good: bool = True,
    ) -> Sample:
        """The vectors of some probes at one address, as they come, of whatever dimensions. Raises AttemptFailed.

        On a connection that is closed after it: so a balancer that keeps to connections shows who else is behind it.
        """
        inputs = Inputs(texts, is_array=len(texts) > 1, caller="", deadline=0, normalize=False)  # as they come
        body, url, read = self.render(texts, "error", normalize=door is None, as_base64=as_base64, door=door or SAME)
        max_bytes = BYTES_PER_REPLY + len(texts) * (BYTES_PER_ROW + BYTES_PER_NUMBER * MAX_DIMENSIONS)

        async def sample(answer: UpstreamResponse) -> tuple[Sample, int | None]:
            reading, rows = await self.array_of(answer, inputs, self.settings.dimensions if door is None else None, read)
            return Sample(rows, isinstance(reading.vectors[0], bytes), fingerprint_of(answer)), reading.num_tokens

        call = UpstreamRequest(
            encode(body), max_bytes, sample, url=url, headers=CLOSE, is_known_good=is_known_good and len(texts) == 1
        )
        found, num_told = await self.exchange.attempt(endpoint, self.connection, call, is_counted=False)
        estimate = sum(map(estimated_tokens, texts))
        self.metrics.probe_tokens.inc(num_told if num_told is not None and is_honest(num_told, texts) else estimate)
        return found

    async def byte_counts(self, inputs: Inputs, rule: LongInput) -> tuple[int, list[int]]:
        """What a body has beside its texts, and what each of them takes of it, its comma included."""
        door = SAME if inputs.normalize else self.known.raw
        rendered = self.render(
            [], rule, normalize=inputs.normalize, as_base64=self.known.as_base64, door=door, input_type=inputs.input_type
        )
        texts = self.with_prompts(inputs)
        is_large = sum(map(len, texts)) > MAX_ON_LOOP_BYTES
        return len(encode(rendered.body)), await asyncio.to_thread(encoded_bytes, texts) if is_large else encoded_bytes(texts)

    def without_base64(self) -> None:
        if self.known.as_base64:
            self.known.as_base64 = False
            log.info("upstream_has_no_base64", model=self.upstream.name)

    async def ask(  # noqa: PLR0913 - what is asked, and how
        self,
        inputs: Inputs,
        counts: list[int],
        rule: LongInput,
        *,
        as_base64: bool,
        endpoint: Endpoint | None = None,
        padded_to: int = 0,
        is_known_good: bool = False,
    ) -> Vectors:
        """In one call, at any address or at this one; in a body of so many bytes, by white space, which JSON allows."""
        texts = self.with_prompts(inputs)
        known = self.known
        door = SAME if inputs.normalize else known.raw
        body, url, read = self.render(
            texts, rule, normalize=inputs.normalize, as_base64=as_base64, door=door, input_type=inputs.input_type
        )
        is_large = sum(map(len, texts)) > MAX_ON_LOOP_BYTES
        content = await asyncio.to_thread(encode, body) if is_large else encode(body)
        content = content.ljust(padded_to)
        max_bytes = BYTES_PER_REPLY + len(texts) * (BYTES_PER_ROW + BYTES_PER_NUMBER * (known.dimensions or MAX_DIMENSIONS))

        async def vectors_of(answer: UpstreamResponse) -> tuple[ParsedResponse, NDArray[np.float32]]:
            self.refuse_other_vectors(fingerprint_of(answer), known)
            return await self.array_of(answer, inputs, known.dimensions, read)

        call = UpstreamRequest(content, max_bytes, vectors_of, inputs.deadline or math.inf, url, is_known_good=is_known_good)
        if endpoint is None:
            reading, rows = await self.exchange.ask(self.connection, call)
        else:
            reading, rows = await self.exchange.ask_same(endpoint, self.connection, call)
        if as_base64 and isinstance(reading.vectors[0], list) and door is SAME:
            self.without_base64()  # it was asked for bytes and gave numbers: it need not be asked again
        return Vectors(rows, token_counts=self.count_tokens(reading.num_tokens, texts, counts))

    def render(  # noqa: PLR0913 - what is asked, and how
        self,
        texts: list[str],
        rule: LongInput,
        *,
        normalize: bool,
        as_base64: bool,
        door: Door,
        input_type: str | None = None,
    ) -> RenderedRequest:
        """The body in the words of a door, where that is, and how its reply is read."""
        is_gateway = self.known.theirs is not None
        ask = UpstreamQuery(
            texts, self.upstream.model, self.settings, rule, normalize, as_base64, knows_normalize=is_gateway, input_type=input_type
        )
        if door.path is None or door.body is None or door.read is None:
            return RenderedRequest(self.dialect.body(ask), own_url, self.dialect.read)
        return RenderedRequest(door.body(ask), partial(url_of, door.path), door.read)

    def with_prompts(self, inputs: Inputs) -> list[str]:
        if inputs.instruction is not None:
            form = self.settings.instruction_format or instruction_format_of(self.settings.prompts) or INSTRUCTION
            prompt = form.replace(INSTRUCTION, inputs.instruction)
        else:
            prompt = self.settings.prompts.get(inputs.input_type, "") if inputs.input_type else ""
        return [prompt + text for text in inputs.texts] if prompt else inputs.texts

    async def array_of(
        self, answer: UpstreamResponse, inputs: Inputs, dimensions: int | None, read: ReadReply
    ) -> tuple[ParsedResponse, NDArray[np.float32]]:
        """Raises AttemptFailed where the answer is a refusal, or cannot be trusted."""
        if answer.status != OK:
            raise AttemptFailed(failures.of_answer(answer, inputs, self.upstream))
        understood = partial(self.parse, answer, inputs, dimensions, read)
        try:
            return await asyncio.to_thread(understood) if len(answer.content) > MAX_ON_LOOP_BYTES else understood()
        except OtherDimensions as other:
            if self.settings.dimensions is not None:  # as many as were asked for, whatever model it is
                raise AttemptFailed(failures.of_invalid_response(str(other), self.upstream)) from None
            raise AttemptFailed(failures.of_other_vectors(f"answered wrongly: {other}", self.upstream)) from None
        except InvalidResponse as nonsense:
            code = self.upstream.secrets.passed(read_error(answer.content, OK).code, inputs.texts)
            raise AttemptFailed(failures.of_invalid_response(str(nonsense), self.upstream, code)) from None
        except NotANumber as error:
            raise AttemptFailed(failures.of_not_a_number(inputs.where(error.position), is_zero=error.is_zero)) from None

    def refuse_other_vectors(self, fingerprint: str | None, known: Known) -> None:
        """Another gateway tells which vectors it gives. Two kinds are never mixed."""
        if fingerprint is not None and known.theirs is not None and fingerprint != known.theirs:
            raise AttemptFailed(
                failures.of_other_vectors("answered wrongly: its vectors are others than when it was first asked", self.upstream)
            )

    def parse(
        self, answer: UpstreamResponse, inputs: Inputs, dimensions: int | None, read: ReadReply
    ) -> tuple[ParsedResponse, NDArray[np.float32]]:
        reading = read(answer.content, answer.headers)
        rows = array(reading, len(inputs.texts), dimensions)
        return reading, scale_to_unit(rows) if inputs.normalize else rows

    def count_tokens(self, told: int | None, texts: list[str], estimates: list[int]) -> list[int]:
        """The upstream's own count, shared out among the inputs; the estimates where it tells none that can be true."""
        if told is not None and is_honest(told, texts):
            return apportion(told, estimates)
        self.metrics.estimated_tokens.inc(sum(estimates))
        return estimates


def encoded_bytes(texts: list[str]) -> list[int]:
    return [len(encode(text)) + len(",") for text in texts]


def own_url(endpoint: Endpoint) -> URL:
    return endpoint.url


def url_of(path: str, endpoint: Endpoint) -> URL:
    return endpoint.at_root(path)


def fingerprint_of(answer: UpstreamResponse) -> str | None:
    """What another gateway calls its vectors. Anything else in that header is none, and gets into no reply, log or label."""
    told = answer.headers.get("x-gateway-fingerprint", "")
    return told if re.fullmatch(r"[\w.-]{1,128}", told, flags=re.ASCII) else None
