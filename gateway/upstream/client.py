"""Client of one upstream: renders a request in its protocol, sends it, and reads vectors or scores from the reply."""

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
from gateway.upstream import failures, scores
from gateway.upstream.dialect import SAME, Dialect, ServerApi, UpstreamLimits, UpstreamQuery
from gateway.upstream.dispatch import Dispatcher, UpstreamRequest
from gateway.upstream.error_body import read_error
from gateway.upstream.estimate import apportion, estimated_tokens, is_honest
from gateway.upstream.failures import AttemptFailed, UpstreamInfo
from gateway.upstream.load_balancing import Endpoint
from gateway.upstream.probe import QUERY, unit
from gateway.upstream.request_limits import RequestLimits
from gateway.upstream.settings import AnySettings
from gateway.upstream.transport import Transport, TransportError, UpstreamResponse
from gateway.upstream.validation import (
    InvalidResponse,
    NotANumber,
    OtherDimensions,
    ParsedResponse,
    UnexpectedScore,
    array,
    score_column,
)

OK = 200
MAX_DIMENSIONS = 65_536  # bounds a reply before the dimensions are known
# A number in JSON is at most 24 characters and a separator; each row and the reply have field names around them.
BYTES_PER_NUMBER, BYTES_PER_ROW, BYTES_PER_REPLY = 32, 512, 64 * 1024
BYTES_PER_ESCAPED_BYTE = 6  # of a document that a reranker repeats: \u0061
MAX_INFO_BYTES = 4 * 1024 * 1024  # a list of all models of a hosted API
MAX_ON_LOOP_BYTES = 64 * 1024

CLOSE = {"connection": "close"}

encode = msgspec.json.Encoder().encode
log = get_logger()


@dataclass(frozen=True, slots=True)
class Sample:
    """The reply to a probe: `rows` as received, `is_bytes` if that was base64, `theirs` another gateway's fingerprint."""

    rows: Float32
    is_bytes: bool
    theirs: str | None


@dataclass(slots=True)
class Known:
    """What is known of an upstream so far. `theirs` is another gateway's fingerprint.

    `own` is the API that is used, `raw` the one with unnormalised vectors.
    """

    dimensions: int | None = None
    theirs: str | None = None
    as_base64: bool = False
    raw: ServerApi = field(default_factory=lambda: SAME)
    own: ServerApi = field(default_factory=lambda: SAME)


ReadReply = Callable[[bytes, Mapping[str, str]], ParsedResponse]


class _RenderedRequest(NamedTuple):
    """A request for one API of the server: its body, its URL, and the reader of its reply."""

    body: dict[str, Any]
    url: Callable[[Endpoint], URL]
    read: ReadReply
    are_probabilities: bool = False


class UpstreamClient:
    """`known` is replaced when the upstream's model changes; `limits` bound the size of one request."""

    def __init__(  # noqa: PLR0913 - its settings, its parts, and what it learns
        self,
        settings: AnySettings,
        dialect: Dialect,
        *,
        connection: Transport,
        dispatcher: Dispatcher,
        metrics: UpstreamMetrics,
        limits: RequestLimits,
    ) -> None:
        self.settings = settings
        self.dialect = dialect
        self.connection = connection
        self.dispatcher = dispatcher
        self.upstream: UpstreamInfo = dispatcher.upstream
        self.metrics = metrics
        self.limits = limits
        self.known = Known(settings.dimensions, None, dialect.knows_base64)
        self.has_given_logits = False  # though its probes gave what may be probabilities

    @property
    def is_reranker(self) -> bool:
        return self.dialect.kind == "reranker"

    def directions(self, rows: Float32) -> Float32:
        """Vectors of length 1 that probes compare: those of an embedder, or points of a reranker's scores."""
        return scores.points(rows) if self.is_reranker else unit(rows)

    @property
    def as_base64(self) -> bool:
        return self.known.as_base64

    async def fetch_limits(self, endpoint: Endpoint) -> UpstreamLimits:
        """Fetches what the server at one endpoint reports of itself. Raises AttemptFailed."""
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

    async def sample(  # noqa: PLR0913 - what to send, and how
        self,
        endpoint: Endpoint,
        texts: list[str],
        *,
        as_base64: bool = False,
        api: ServerApi | None = None,
        normalize: bool = True,
        query: str = QUERY,
        is_known_good: bool = True,
    ) -> Sample:
        """Embeds probe texts at one endpoint, through `api`, or if None its usual one. A reranker scores them for `query`.

        Without `normalize` the API is one of unnormalised vectors, which knows nothing of the row's dimensions.

        Closes the connection afterwards, so that a balancer that pins connections shows the other servers behind it.

        Returns the vectors as received, of any dimensions. Raises AttemptFailed.
        """
        asked = query if self.is_reranker else None
        inputs = Inputs(texts, is_array=len(texts) > 1, caller="", deadline=0, normalize=False, query=asked)  # vectors as received
        request = self.render(texts, "error", normalize=normalize, as_base64=as_base64, api=api or self.known.own, query=asked)
        content = encode(request.body)
        max_bytes = self.max_reply_bytes(len(texts), None, content)

        async def sample(answer: UpstreamResponse) -> tuple[Sample, int | None]:
            reading, rows = await self.array_of(answer, inputs, self.settings.dimensions if normalize else None, request)
            return Sample(rows, isinstance(reading.vectors[0], bytes), fingerprint_of(answer)), reading.num_tokens

        call = UpstreamRequest(
            content, max_bytes, sample, url=request.url, headers=CLOSE, is_known_good=is_known_good and len(texts) == 1
        )
        found, num_reported = await self.dispatcher.attempt(endpoint, self.connection, call, is_counted=False)
        counted = _paired(asked, texts)
        estimate = sum(map(estimated_tokens, counted))
        self.metrics.probe_tokens.inc(num_reported if num_reported is not None and is_honest(num_reported, counted) else estimate)
        return found

    def max_reply_bytes(self, num_texts: int, dimensions: int | None, content: bytes) -> int:
        """Bounds a reply. Some rerankers repeat every document in theirs, which `content`, the request, contains."""
        if self.is_reranker:
            return BYTES_PER_REPLY + num_texts * BYTES_PER_ROW + BYTES_PER_ESCAPED_BYTE * len(content)
        return BYTES_PER_REPLY + num_texts * (BYTES_PER_ROW + BYTES_PER_NUMBER * (dimensions or MAX_DIMENSIONS))

    def api_for(self, inputs: Inputs) -> ServerApi:
        return self.known.own if inputs.normalize or self.is_reranker else self.known.raw

    async def byte_counts(self, inputs: Inputs, rule: LongInput) -> tuple[int, list[int]]:
        """Returns the bytes of a body without its texts, and the bytes that each text adds, its comma included."""

        def num_bytes_with(texts: list[str]) -> int:
            rendered = self.render(
                texts, rule, normalize=inputs.normalize, as_base64=self.known.as_base64, api=self.api_for(inputs),
                input_type=inputs.input_type, query=inputs.query,
            )  # fmt: skip
            return len(encode(rendered.body))

        around_each = num_bytes_with(["", ""]) - num_bytes_with([""]) - len('"",')  # of a server that wants objects
        texts = self.with_prompts(inputs)
        is_large = sum(map(len, texts)) > MAX_ON_LOOP_BYTES
        counts = await asyncio.to_thread(_encoded_bytes, texts) if is_large else _encoded_bytes(texts)
        return num_bytes_with([]), [around_each + count for count in counts]

    def without_base64(self) -> None:
        if self.known.as_base64:
            self.known.as_base64 = False
            log.info("upstream_has_no_base64", model=self.upstream.name)

    async def ask(  # noqa: PLR0913 - the request, and how to send it
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
        """Sends one request, to `endpoint` or if None to any. White space, which JSON allows, pads it to `padded_to` bytes."""
        texts = self.with_prompts(inputs)
        known = self.known
        api = self.api_for(inputs)
        request = self.render(
            texts, rule, normalize=inputs.normalize, as_base64=as_base64, api=api, input_type=inputs.input_type, query=inputs.query
        )
        is_large = sum(map(len, texts)) > MAX_ON_LOOP_BYTES
        content = await asyncio.to_thread(encode, request.body) if is_large else encode(request.body)
        max_bytes = self.max_reply_bytes(len(texts), known.dimensions, content)
        content = content.ljust(padded_to)

        async def vectors_of(answer: UpstreamResponse) -> tuple[ParsedResponse, NDArray[np.float32]]:
            self.refuse_other_vectors(fingerprint_of(answer), known)
            return await self.array_of(answer, inputs, known.dimensions, request)

        call = UpstreamRequest(
            content, max_bytes, vectors_of, inputs.deadline or math.inf, request.url, is_known_good=is_known_good
        )
        if endpoint is None:
            reading, rows = await self.dispatcher.ask(self.connection, call)
        else:
            reading, rows = await self.dispatcher.ask_same(endpoint, self.connection, call)
        if as_base64 and isinstance(reading.vectors[0], list) and api is SAME:
            self.without_base64()  # asked for base64 it gave numbers: it is not asked for base64 again
        return Vectors(rows, token_counts=self.count_tokens(reading.num_tokens, _paired(inputs.query, texts), counts))

    def render(  # noqa: PLR0913 - the request, and how to send it
        self,
        texts: list[str],
        rule: LongInput,
        *,
        normalize: bool,
        as_base64: bool,
        api: ServerApi,
        input_type: str | None = None,
        query: str | None = None,
    ) -> _RenderedRequest:
        """Renders a request for one API of the server."""
        is_gateway = self.known.theirs is not None
        ask = UpstreamQuery(
            texts, self.upstream.model, self.settings, rule, normalize, as_base64, knows_normalize=is_gateway,
            input_type=input_type, query=query,
        )  # fmt: skip
        body = {**(api.body or self.dialect.body)(ask), **dict(api.fields)}
        return _RenderedRequest(body, partial(_url_of, api), api.read or self.dialect.read, api.are_probabilities)

    def with_prompts(self, inputs: Inputs) -> list[str]:
        if self.is_reranker:
            return inputs.texts
        if inputs.instruction is not None:
            form = self.settings.instruction_format or instruction_format_of(self.settings.prompts) or INSTRUCTION
            prompt = form.replace(INSTRUCTION, inputs.instruction)
        else:
            prompt = self.settings.prompts.get(inputs.input_type, "") if inputs.input_type else ""
        return [prompt + text for text in inputs.texts] if prompt else inputs.texts

    async def array_of(
        self, answer: UpstreamResponse, inputs: Inputs, dimensions: int | None, request: _RenderedRequest
    ) -> tuple[ParsedResponse, NDArray[np.float32]]:
        """Parses a reply into an array. Raises AttemptFailed if it is a refusal or cannot be trusted."""
        if answer.status != OK:
            raise AttemptFailed(failures.of_answer(answer, inputs, self.upstream))
        understood = partial(self.parse, answer, inputs, dimensions, request)
        try:
            return await asyncio.to_thread(understood) if len(answer.content) > MAX_ON_LOOP_BYTES else understood()
        except OtherDimensions as other:
            if self.settings.dimensions is not None:  # any model must give as many as were asked for
                raise AttemptFailed(failures.of_invalid_response(str(other), self.upstream)) from None
            raise AttemptFailed(failures.of_other_vectors(f"answered wrongly: {other}", self.upstream)) from None
        except UnexpectedScore as other:
            self.has_given_logits = True
            raise AttemptFailed(failures.of_other_vectors(f"answered wrongly: {other}", self.upstream)) from None
        except InvalidResponse as nonsense:
            code = self.upstream.secrets.passed(read_error(answer.content, OK).code, failures.sent_texts(inputs))
            raise AttemptFailed(failures.of_invalid_response(str(nonsense), self.upstream, code)) from None
        except NotANumber as error:
            raise AttemptFailed(failures.of_not_a_number(inputs.where(error.position), is_zero=error.is_zero)) from None

    def refuse_other_vectors(self, fingerprint: str | None, known: Known) -> None:
        """Keeps vectors of two models apart. Raises AttemptFailed if another gateway's fingerprint is not the known one."""
        if fingerprint is not None and known.theirs is not None and fingerprint != known.theirs:
            raise AttemptFailed(
                failures.of_other_vectors("answered wrongly: its vectors are others than when it was first asked", self.upstream)
            )

    def parse(
        self, answer: UpstreamResponse, inputs: Inputs, dimensions: int | None, request: _RenderedRequest
    ) -> tuple[ParsedResponse, NDArray[np.float32]]:
        reading = request.read(answer.content, answer.headers)
        if self.is_reranker:
            return reading, score_column(reading, len(inputs.texts), are_probabilities=request.are_probabilities)
        rows = array(reading, len(inputs.texts), dimensions)
        return reading, scale_to_unit(rows) if inputs.normalize else rows

    def count_tokens(self, reported: int | None, texts: list[str], estimates: list[int]) -> list[int]:
        """Apportions the upstream's own count among the inputs. Returns the estimates if it gives none, or an impossible one."""
        if reported is not None and is_honest(reported, texts):
            return apportion(reported, estimates)
        self.metrics.estimated_tokens.inc(sum(estimates))
        return estimates


def _encoded_bytes(texts: list[str]) -> list[int]:
    return [len(encode(text)) + len(",") for text in texts]


def _paired(query: str | None, texts: list[str]) -> list[str]:
    """The texts that a server counts the tokens of: a reranker reads the query with each document."""
    return texts if query is None else [query + text for text in texts]


def _url_of(api: ServerApi, endpoint: Endpoint) -> URL:
    if api.path is None:
        return endpoint.url
    return endpoint.at_root(api.path) if api.is_at_root else endpoint.with_path(api.path)


def fingerprint_of(answer: UpstreamResponse) -> str | None:
    """Another gateway's fingerprint of its vectors. Returns None for any other value: no reply, log or label may have it."""
    reported = answer.headers.get("x-gateway-fingerprint", "")
    return reported if re.fullmatch(r"[\w.-]{1,128}", reported, flags=re.ASCII) else None
