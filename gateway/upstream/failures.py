"""Maps every failure of another server to an error of ours. The server's text is read and never quoted: it may contain inputs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gateway.backoff import Backoff
from gateway.embedding.embedder import Inputs
from gateway.errors import GatewayError, InputTooLong, Unembeddable, UpstreamError, UpstreamUnavailable
from gateway.upstream.error_body import ErrorReply, read_error, retry_after_seconds
from gateway.upstream.refusal import BAD_REQUEST, OK, UpstreamRefusal, may_hang_on_inputs, read_refusal
from gateway.upstream.secret_filter import SecretFilter
from gateway.upstream.transport import Kind, UpstreamResponse

if TYPE_CHECKING:
    from gateway.upstream.load_balancing import Endpoint

REDIRECT, CLIENT_ERROR, UNAUTHORIZED, TOO_MANY_REQUESTS, SERVER_ERROR = 300, 400, 401, 429, 500
WRONG_KEY = re.compile(r"(api_?key_?invalid|invalid_?api_?key)", re.IGNORECASE)  # a code; Google says it with 400
SHORT_SECONDS = 2.0  # the longest Retry-After that a retry waits for
RETRIES = Backoff(first_seconds=0.1, max_seconds=1.0)  # of a request, at the same endpoint


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt. `outcome` is its label in the metrics; `is_fault` counts against the endpoint in its breaker.

    `is_undecided`: the inputs may have caused it, so no breaker counts it until a known-good text was sent too. It has a `refusal`
    if the inputs may be halved to find out. `is_silent`: a connection was lost silently, which blames the network and no endpoint;
    what was sent on it did not arrive, so a retry costs the upstream nothing. `is_other`: it gave vectors of another model. `code`
    is the upstream's own, fit to be shown. `wait_seconds` is its Retry-After.
    """

    outcome: str
    error: GatewayError
    is_fault: bool = False
    may_retry: bool = False
    is_silent: bool = False
    wait_seconds: float = 0.0
    is_other: bool = False
    is_undecided: bool = False
    refusal: UpstreamRefusal | None = None
    code: str | None = None

    def pause_seconds(self, num_failures: int) -> float:
        """The pause before a retry at the same endpoint, after so many failures in a row."""
        return RETRIES.pause_seconds(num_failures, at_least_seconds=self.wait_seconds)

    @property
    def is_broken(self) -> bool:
        """Whether the connection broke before the reply: the server may have closed it before the request came."""
        return self.outcome == "cut"

    @property
    def is_lasting(self) -> bool:
        """Whether it would happen again until an operator fixes it."""
        return not isinstance(self.error, UpstreamUnavailable) and not (
            isinstance(self.error, UpstreamError) and self.error.may_help
        )


class AttemptFailed(Exception):
    """Carries a Failure to the code that handles it. `endpoint` is where the request was sent, if it was sent."""

    def __init__(self, failure: Failure, endpoint: "Endpoint | None" = None) -> None:
        super().__init__(failure.outcome)
        self.failure = failure
        self.endpoint = endpoint


@dataclass(frozen=True, slots=True)
class UpstreamInfo:
    """What messages name: the model's name here, and there; how to add it if it is missing; how many tokens it reads."""

    name: str
    model: str
    remedy: str = ""
    max_tokens: int = 8192
    secrets: SecretFilter = field(default_factory=SecretFilter)
    operation: str = "embeddings"  # or "rerank", for traces


BROKEN: Mapping[Kind, tuple[str, bool, bool]] = {  # the message, whether it is unavailable, whether a retry may help
    "connect": ("cannot be reached", True, True),
    "timeout": ("did not answer in time", False, False),
    "silent": ("is silent: the connection was lost without a word", False, True),
    "cut": ("broke the connection", False, True),
    "tls": ("could not be trusted: its TLS certificate was refused, or its TLS is not ours", False, False),
    "nonsense": ("answered what is no HTTP", False, False),
    "too_large": ("answered far more than was asked for", False, False),
}
RETRIES_MAY_HELP_LATER = {"connect", "timeout", "silent", "cut"}


def of_transport_error(kind: Kind, upstream: UpstreamInfo) -> Failure:
    reason, is_unavailable, may_retry = BROKEN[kind]
    if is_unavailable:
        error: GatewayError = UpstreamUnavailable(upstream.name, reason)
    else:
        error = UpstreamError(upstream.name, reason, may_help=kind in RETRIES_MAY_HELP_LATER)
    is_silent = kind == "silent"
    refusal = UpstreamRefusal(OK) if kind == "cut" else None  # how some servers refuse a large request, or die of an input
    return Failure(
        kind, error, is_fault=not is_silent, may_retry=may_retry, is_silent=is_silent, is_undecided=refusal is not None,
        refusal=refusal,
    )  # fmt: skip


def of_invalid_response(reason: str, upstream: UpstreamInfo, code: str | None = None) -> Failure:
    """For a reply that is not what the protocol says. `reason` is in our own words."""
    error = UpstreamError(upstream.name, f"answered wrongly: {reason}{shown(code)}")
    return Failure("nonsense", error, is_fault=True, is_undecided=True, refusal=UpstreamRefusal(OK), code=code)


def of_unknown_refusal(reason: str, upstream: UpstreamInfo) -> Failure:
    return Failure("bad_request", UpstreamError(upstream.name, reason))


def of_not_a_number(where: str, *, is_zero: bool = False) -> Failure:
    error = Unembeddable(where, "it gave a vector of zeros, which has no direction") if is_zero else Unembeddable(where)
    return Failure("unembeddable", error)


def of_other_vectors(reason: str, upstream: UpstreamInfo) -> Failure:
    """For vectors of another model than was measured. The endpoint is probed before the next request."""
    return Failure("other_vectors", UpstreamError(upstream.name, reason, may_help=True), is_other=True)


def of_no_embedder(reason: str, upstream: UpstreamInfo) -> Failure:
    """For a server whose replies to probes are no embeddings."""
    return Failure("no_embedder", UpstreamError(upstream.name, reason))


def of_no_scores(failure: Failure, upstream: UpstreamInfo) -> Failure:
    """For a server that understood no request for scores: `failure` is what became of the first."""
    if not failure.is_lasting:
        return failure
    reason = failure.error.message.removeprefix(f"The upstream of the model `{upstream.name}` ").removesuffix(".")
    return replace(failure, error=UpstreamError(upstream.name, f"gives no scores: it {reason}"))


def of_unproven(reason: str, upstream: UpstreamInfo, *, wait_seconds: float = 1.0) -> Failure:
    """For a server whose vectors cannot be verified now, so that none are served."""
    return Failure("unproven", UpstreamUnavailable(upstream.name, reason, retry_after_seconds=max(1.0, wait_seconds)))


def of_open_breaker(wait_seconds: float, upstream: UpstreamInfo) -> Failure:
    error = UpstreamUnavailable(
        upstream.name, "has failed too often and is cooling down", retry_after_seconds=max(1.0, wait_seconds)
    )
    return Failure("open", error)


def of_answer(answer: UpstreamResponse, inputs: Inputs, upstream: UpstreamInfo) -> Failure:
    """For a reply with any status but 200. `inputs` are those that were sent, in that order."""
    error_reply = read_error(answer.content, answer.status)
    in_header = retry_after_seconds(answer.headers)
    wait_seconds = in_header if in_header is not None else error_reply.wait_seconds
    code = upstream.secrets.passed(error_reply.code, sent_texts(inputs))
    error_reply = replace(error_reply, code=code, wait_seconds=wait_seconds)
    if answer.status == TOO_MANY_REQUESTS:
        return _of_rate_limit(error_reply, upstream)
    if answer.status in BAD_REQUEST and WRONG_KEY.fullmatch(error_reply.code or ""):
        return _lasting(UNAUTHORIZED, error_reply, upstream)
    if may_hang_on_inputs(answer.status):
        return _of_refusal(answer, error_reply, inputs, upstream)
    if answer.status in PASSING or answer.status >= SERVER_ERROR:
        return faulty(answer, error_reply, upstream)
    return _lasting(answer.status, error_reply, upstream)


def sent_texts(inputs: Inputs) -> list[str]:
    """All texts of a request, which the server may repeat: a reranker's query too."""
    return inputs.texts if inputs.query is None else [*inputs.texts, inputs.query]


NOT_THERE = {501, 505}  # the server was not built, or not started, for embeddings: llama.cpp without --embeddings
PASSING = {408, 409, 423, 424, 425}  # a timeout, a conflict, a lock; 424 is TEI's word for a failure of its backend
LASTING = {
    401: ("refused", "refused our key"),
    402: ("refused", "wants to be paid"),
    403: ("refused", "refused our key"),
    404: ("missing", "does not have the model `{model}`, or nothing at this address{remedy}"),
    407: ("refused", "is behind a proxy that refused us"),
}


def shown(code: str | None) -> str:
    """Formats a structured code for a message; the words beside it are never shown."""
    return f" ({code})" if code else ""


def _lasting(status: int, error_reply: ErrorReply, upstream: UpstreamInfo) -> Failure:
    """For a failure that lasts until an operator fixes it."""
    if status in LASTING:
        outcome, reason = LASTING[status]
        remedy = f": {upstream.remedy}" if upstream.remedy else ""
        reason = reason.format(model=upstream.model, remedy=remedy) + shown(error_reply.code)
        return Failure(outcome, UpstreamError(upstream.name, reason), code=error_reply.code)
    is_redirect = REDIRECT <= status < CLIENT_ERROR
    reason = "answered with a redirect, which is not followed" if is_redirect else f"answered with the status {status}"
    return Failure("unexpected", UpstreamError(upstream.name, reason + shown(error_reply.code)), code=error_reply.code)


def _of_refusal(answer: UpstreamResponse, error_reply: ErrorReply, inputs: Inputs, upstream: UpstreamInfo) -> Failure:
    """For a refusal. Blames an input that is named or alone, and surely too long; all else is left to `bisection`.

    A reranker's may be the query's fault, so it blames none.
    """
    refusal = read_refusal(answer.status, error_reply, sent_texts(inputs))
    place = refusal.input_index(len(inputs.texts)) if inputs.query is None else None
    if place is not None and refusal.is_too_long_for_sure:
        return of_own_trouble(refusal, inputs.where(place), error_reply.code, upstream)
    if place is not None and refusal.is_not_a_number:
        return of_not_a_number(inputs.where(place))
    if answer.status >= SERVER_ERROR or answer.status in PASSING:
        found = faulty(answer, error_reply, upstream)
    elif answer.status in BAD_REQUEST:
        reason = f"refused the request with the status {answer.status}{shown(error_reply.code)}"
        found = Failure("bad_request", UpstreamError(upstream.name, reason))
    else:
        found = _lasting(answer.status, error_reply, upstream)
    return replace(found, is_undecided=True, refusal=refusal, code=error_reply.code)


def of_own_trouble(refusal: UpstreamRefusal, where: str, code: str | None, upstream: UpstreamInfo) -> Failure:
    """For an input that fails alone, while others do not."""
    if refusal.is_too_long:
        return Failure("too_long", InputTooLong(where, refusal.max_tokens or upstream.max_tokens), code=code)
    if refusal.is_not_a_number:
        return replace(of_not_a_number(where), code=code)
    if refusal.status == OK:
        reason = f"the server behind it gives no vector for it{shown(code)}"
    else:
        reason = f"the server behind it refuses it with the status {refusal.status}{shown(code)}"
    return Failure("unembeddable", Unembeddable(where, reason, is_of_server=True), code=code)


def _of_rate_limit(error_reply: ErrorReply, upstream: UpstreamInfo) -> Failure:
    if "insufficient_quota" in (error_reply.code, *error_reply.words.split()):
        return Failure("refused", UpstreamError(upstream.name, "says that our quota there is spent"), code=error_reply.code)
    wait_seconds = error_reply.wait_seconds
    is_short = wait_seconds is not None and wait_seconds <= SHORT_SECONDS
    error = UpstreamUnavailable(
        upstream.name, f"has too much to do{shown(error_reply.code)}", retry_after_seconds=wait_seconds or 1
    )
    return Failure("rate_limited", error, may_retry=is_short, wait_seconds=wait_seconds or 0.0, code=error_reply.code)


def faulty(answer: UpstreamResponse, error_reply: ErrorReply, upstream: UpstreamInfo) -> Failure:
    """For a server's fault. A proxy in front of a restarting server sends 502, 503 and 504; 500 is the server's own."""
    status, wait_seconds = answer.status, error_reply.wait_seconds
    may_retry = status in {502, 503, 504} and (wait_seconds or 0.0) <= SHORT_SECONDS
    if status == UpstreamUnavailable.status:
        reason = f"is not available{shown(error_reply.code)}"
        error: GatewayError = UpstreamUnavailable(upstream.name, reason, retry_after_seconds=wait_seconds or 1)
    else:
        error = UpstreamError(
            upstream.name, f"failed with the status {status}{shown(error_reply.code)}", may_help=status not in NOT_THERE
        )
    outcome = f"status_{status}" if status in {500, 502, 503, 504} else "unexpected" if status in PASSING else "status_5xx"
    return Failure(outcome, error, is_fault=True, may_retry=may_retry, wait_seconds=wait_seconds or 0.0, code=error_reply.code)
