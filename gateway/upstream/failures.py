"""Every way another server can fail, mapped to an error of ours. What it says is looked at and never quoted: it may hold inputs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.embedding.embedder import Inputs
from gateway.errors import GatewayError, InputTooLong, Unembeddable, UpstreamError, UpstreamUnavailable
from gateway.upstream.error_body import read_error, retry_after_seconds
from gateway.upstream.transport import Kind, UpstreamResponse

REDIRECT, CLIENT_ERROR, TOO_MANY_REQUESTS, SERVER_ERROR = 300, 400, 429, 500
SHORT_SECONDS = 2.0  # a Retry-After up to this is waited for
PAUSE_SECONDS = 0.05  # before the same address is tried again without being told when

TOO_LONG = re.compile(
    r"maximum (context|input) length|context length|context_length_exceeded|must have less than \d+ tokens"
    r"|input is too (long|large)|\binput \(\d+ tokens\) is too large|too many tokens|longer than the maximum",
    re.IGNORECASE,
)
MAX_TOKENS = re.compile(r"(?:maximum (?:context|input) length is|must have less than) (\d{1,9}) tokens")
INPUT_INDEX = re.compile(r"\binput\[(\d{1,6})\]")
MAX_INPUTS = re.compile(r"maximum allowed batch size (\d{1,6})|array length must be (\d{1,6}) or less|at most (\d{1,6}) items")
NO_BASE64 = re.compile(r"encoding_format|base64", re.IGNORECASE)
NOT_A_NUMBER = re.compile(r"\bNaN\b")


@dataclass(frozen=True, slots=True)
class Failure:
    """One try that failed. `outcome` is its label in the metrics; `is_fault` counts against the address in its breaker.

    `is_silent`: a connection was lost without a word, which blames the network between and no address; what was sent on it did not
    arrive, so that sending it again costs the upstream nothing. `max_inputs` and `no_base64` are what was learned of the upstream:
    asked otherwise it may answer. `is_other`: it gave vectors, and of another model.
    """

    outcome: str
    error: GatewayError
    is_fault: bool = False
    may_retry: bool = False
    is_silent: bool = False
    wait_seconds: float = PAUSE_SECONDS
    max_inputs: int | None = None
    no_base64: bool = False
    is_other: bool = False

    @property
    def is_lasting(self) -> bool:
        """It would happen again until somebody mends it."""
        return not isinstance(self.error, UpstreamUnavailable) and not (
            isinstance(self.error, UpstreamError) and self.error.may_help
        )


class AttemptFailed(Exception):
    """Carries a Failure to who decides what becomes of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.outcome)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class UpstreamInfo:
    """Of whom messages speak: the model as it is called here, and there; what mends its absence; what it reads at once."""

    name: str
    model: str
    remedy: str = ""
    max_tokens: int = 8192


BROKEN: Mapping[Kind, tuple[str, bool, bool]] = {  # what is told, whether it is unavailable, whether a retry may help
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
    reason, is_away, may_retry = BROKEN[kind]
    if is_away:
        error: GatewayError = UpstreamUnavailable(upstream.name, reason)
    else:
        error = UpstreamError(upstream.name, reason, may_help=kind in RETRIES_MAY_HELP_LATER)
    is_silent = kind == "silent"
    return Failure(kind, error, is_fault=not is_silent, may_retry=may_retry, is_silent=is_silent)


def of_invalid_response(reason: str, upstream: UpstreamInfo) -> Failure:
    """`reason` is of our own words."""
    return Failure("nonsense", UpstreamError(upstream.name, f"answered wrongly: {reason}"), is_fault=True)


def of_not_a_number(where: str, *, is_zero: bool = False) -> Failure:
    error = Unembeddable(where, "it gave a vector of zeros, which has no direction") if is_zero else Unembeddable(where)
    return Failure("unembeddable", error)


def of_other_vectors(reason: str, upstream: UpstreamInfo) -> Failure:
    """What came is of another model than what was measured. The address is probed before it is asked again."""
    return Failure("other_vectors", UpstreamError(upstream.name, reason, may_help=True), is_other=True)


def of_no_embedder(reason: str, upstream: UpstreamInfo) -> Failure:
    """By what it was seen to give to probes."""
    return Failure("no_embedder", UpstreamError(upstream.name, reason))


def of_unproven(reason: str, upstream: UpstreamInfo, *, wait_seconds: float = 1.0) -> Failure:
    """Which vectors it gives cannot be told now, so none are served."""
    return Failure("unproven", UpstreamUnavailable(upstream.name, reason, retry_after_seconds=max(1.0, wait_seconds)))


def of_open_breaker(wait_seconds: float, upstream: UpstreamInfo) -> Failure:
    error = UpstreamUnavailable(upstream.name, "has failed too often and is left alone", retry_after_seconds=max(1.0, wait_seconds))
    return Failure("open", error)


def of_answer(answer: UpstreamResponse, inputs: Inputs, upstream: UpstreamInfo) -> Failure:
    """For any status but 200. `inputs` are those it was asked for, in that order."""
    told = read_error(answer.content)
    status = answer.status
    if status in {400, 413, 422, 500} and TOO_LONG.search(told):
        return Failure("too_long", too_long(told, inputs, upstream))
    if status in {400, 500} and NOT_A_NUMBER.search(told):
        return of_not_a_number(inputs.where(0) if len(inputs.texts) == 1 else "input")
    if status in {400, 413, 422}:
        return of_refusal(status, told, upstream)
    if status == TOO_MANY_REQUESTS:
        return of_rate_limit(answer, told, upstream)
    return faulty(answer, upstream) if status >= SERVER_ERROR or status in PASSING else lasting(status, upstream)


PASSING = {408, 409, 423, 424, 425}  # a timeout, a conflict, a lock; 424 is TEI's word for a failure of its backend
LASTING = {
    401: ("refused", "refused our key"),
    402: ("refused", "wants to be paid"),
    403: ("refused", "refused our key"),
    404: ("missing", "does not have the model `{model}`, or nothing at this address{remedy}"),
    407: ("refused", "is behind a proxy that refused us"),
}


def lasting(status: int, upstream: UpstreamInfo) -> Failure:
    """What only somebody who comes and mends it can change."""
    if status in LASTING:
        outcome, reason = LASTING[status]
        remedy = f": {upstream.remedy}" if upstream.remedy else ""
        return Failure(outcome, UpstreamError(upstream.name, reason.format(model=upstream.model, remedy=remedy)))
    is_redirect = REDIRECT <= status < CLIENT_ERROR
    reason = "answered with a redirect, which is not followed" if is_redirect else f"answered with the status {status}"
    return Failure("unexpected", UpstreamError(upstream.name, reason))


def of_refusal(status: int, told: str, upstream: UpstreamInfo) -> Failure:
    found = MAX_INPUTS.search(told)
    return Failure(
        "bad_request",
        UpstreamError(upstream.name, f"refused the request with the status {status}"),
        max_inputs=int(next(filter(None, found.groups()))) if found else None,
        no_base64=NO_BASE64.search(told) is not None,
    )


def too_long(told: str, inputs: Inputs, upstream: UpstreamInfo) -> InputTooLong:
    """Names the input where there is only one, or where the upstream numbers it."""
    index, limit = INPUT_INDEX.search(told), MAX_TOKENS.search(told)
    position = 0 if len(inputs.texts) == 1 else int(index[1]) if index else None
    where = inputs.where(position) if position is not None and position < len(inputs.texts) else "input"
    return InputTooLong(where, int(limit[1]) if limit else upstream.max_tokens)


def of_rate_limit(answer: UpstreamResponse, told: str, upstream: UpstreamInfo) -> Failure:
    if "insufficient_quota" in told:
        return Failure("refused", UpstreamError(upstream.name, "says that our quota there is spent"))
    wait_seconds = retry_after_seconds(answer.headers)
    is_short = wait_seconds is not None and wait_seconds <= SHORT_SECONDS
    error = UpstreamUnavailable(upstream.name, "has too much to do", retry_after_seconds=wait_seconds or 1)
    return Failure("rate_limited", error, may_retry=is_short, wait_seconds=wait_seconds or 0.0)


def faulty(answer: UpstreamResponse, upstream: UpstreamInfo) -> Failure:
    """502, 503 and 504 are said by whatever stands before a server that restarts; 500 is the server's own trouble."""
    status, wait_seconds = answer.status, retry_after_seconds(answer.headers)
    may_retry = status in {502, 503, 504} and (wait_seconds or 0.0) <= SHORT_SECONDS
    if status == UpstreamUnavailable.status:
        error: GatewayError = UpstreamUnavailable(upstream.name, "is not available", retry_after_seconds=wait_seconds or 1)
    else:
        error = UpstreamError(upstream.name, f"failed with the status {status}", may_help=True)
    pause = PAUSE_SECONDS if wait_seconds is None else wait_seconds
    outcome = f"status_{status}" if status in {500, 502, 503, 504} else "unexpected" if status in PASSING else "status_5xx"
    return Failure(outcome, error, is_fault=True, may_retry=may_retry, wait_seconds=pause)
