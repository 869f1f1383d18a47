"""Every way another server can fail has an error of ours."""

import email.utils
import errno
import inspect
import json
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InputTooLong, Unembeddable, UpstreamError, UpstreamUnavailable
from gateway.tests.upstream.conftest import inputs
from gateway.upstream import error_body, failures
from gateway.upstream.failures import BROKEN, UpstreamInfo
from gateway.upstream.transport import KINDS, UpstreamResponse, kind_of

SUBJECT = UpstreamInfo("m", "theirs", "`ollama pull theirs` there mends it")
SECRET = "a text of a client"
KEY = ConnectionKey("h", 1, False, True, None, None, None)


def foreign_errors():
    """Every exception aiohttp exports, made without asking how, and the system's own."""
    classes = [each for each in vars(aiohttp).values() if inspect.isclass(each) and issubclass(each, Exception)]
    classes += [
        aiohttp.http_exceptions.BadStatusLine,
        aiohttp.http_exceptions.LineTooLong,
        ssl.SSLCertVerificationError,
        ssl.SSLError,
    ]
    classes += [TimeoutError, ConnectionResetError, ConnectionRefusedError, BrokenPipeError, OSError, ValueError, RuntimeError]
    return sorted(set(classes), key=lambda each: each.__name__)


@pytest.mark.parametrize("foreign", foreign_errors(), ids=lambda each: each.__name__)
def test_whatever_the_client_library_raises_is_an_error_of_ours(foreign):
    error = foreign.__new__(foreign)
    kind = kind_of(error)
    failure = failures.of_transport_error(kind, SUBJECT)
    assert isinstance(failure.error, UpstreamUnavailable | UpstreamError)
    assert "`m`" in failure.error.message
    assert failure.is_fault or failure.is_undecided


def test_there_are_many_of_them_and_each_kind_has_one():
    assert len(foreign_errors()) > 25
    assert {kind for _, kind in KINDS} | {"silent", "too_large"} == set(BROKEN)


@pytest.mark.parametrize(
    ("foreign", "kind"),
    [
        (aiohttp.ClientConnectorError, "connect"),
        (aiohttp.ClientConnectorDNSError, "connect"),
        (aiohttp.ConnectionTimeoutError, "connect"),
        (aiohttp.ClientProxyConnectionError, "connect"),
        (aiohttp.ClientHttpProxyError, "connect"),
        (aiohttp.ClientConnectorCertificateError, "tls"),
        (aiohttp.ClientConnectorSSLError, "tls"),
        (aiohttp.SocketTimeoutError, "timeout"),
        (aiohttp.ServerTimeoutError, "timeout"),
        (aiohttp.ServerDisconnectedError, "cut"),
        (aiohttp.ClientOSError, "cut"),
        (aiohttp.ClientPayloadError, "cut"),
        (ConnectionResetError, "cut"),
        (aiohttp.ClientResponseError, "nonsense"),
        (aiohttp.InvalidURL, "nonsense"),
    ],
)
def test_the_kinds_are_told_apart(foreign, kind):
    assert kind_of(foreign.__new__(foreign)) == kind


@pytest.mark.parametrize("error", [TimeoutError, aiohttp.ClientOSError])
def test_what_the_kernel_gave_up_waiting_for_was_silent_and_blames_no_address(error):
    kind = kind_of(error(errno.ETIMEDOUT, "Connection timed out"))
    failure = failures.of_transport_error(kind, SUBJECT)
    assert (kind, failure.is_fault, failure.may_retry, failure.is_silent) == ("silent", False, True, True)


def nested(message):
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


BODIES = [
    b"",
    b"<html><body>502 Bad Gateway</body></html>",
    b'{"error": {"message": "no", "type": "x", "param": null, "code": "y"}}',
    b'{"error": "no"}',
    b'{"detail": [{"loc": ["body", "input"], "msg": "no", "input": "a text of a client"}]}',
    b"[[[[",
    b"\xff\xfe",
    b'"' + SECRET.encode() + b'"',
]


@pytest.mark.parametrize("status", [*range(100, 200), *range(201, 600), 999])
def test_every_status_but_200_is_an_error_of_ours(status):
    for body in BODIES:
        failure = failures.of_answer(UpstreamResponse(status, {}, body), inputs("a"), SUBJECT)
        assert isinstance(failure.error, GatewayError)
        assert failure.error.status in {400, 500, 502, 503}
        assert SECRET not in failure.error.message
        if failure.error.status >= 500:
            assert {"Retry-After", "x-should-retry"} & set(failure.error.headers())
        assert failure.may_retry <= (status in {502, 503, 504})  # of 429 only what says when


@given(st.integers(100, 599), st.binary(max_size=300), st.dictionaries(st.just("Retry-After"), st.text(max_size=20)))
def test_no_body_and_no_header_surprises_it(status, content, headers):
    assert isinstance(failures.of_answer(UpstreamResponse(status, headers, content), inputs("a"), SUBJECT).error, GatewayError)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "detail", "message", "code", "msg", "loc"]), inner),
    max_leaves=15,
)


@given(JSON)
@example({"detail": [{"loc": None, "msg": 1}]})
def test_whatever_json_an_error_is_its_words_are_text(value):
    assert isinstance(error_body.read_error(json.dumps(value).encode()).words, str)


@pytest.mark.parametrize(
    ("status", "kind", "outcome", "retry_after"),
    [
        (401, UpstreamError, "refused", None),
        (403, UpstreamError, "refused", None),
        (404, UpstreamError, "missing", None),
        (301, UpstreamError, "unexpected", None),
        (204, UpstreamError, "unexpected", None),
        (400, UpstreamError, "bad_request", None),
        (500, UpstreamError, "status_500", "1"),
        (502, UpstreamError, "status_502", "1"),
        (503, UpstreamUnavailable, "status_503", "1"),
        (504, UpstreamError, "status_504", "1"),
        (424, UpstreamError, "unexpected", "1"),
        (418, UpstreamError, "unexpected", None),
        (429, UpstreamUnavailable, "rate_limited", "1"),
    ],
)
def test_the_table(status, kind, outcome, retry_after):
    failure = failures.of_answer(UpstreamResponse(status, {}, b""), inputs("a"), SUBJECT)
    assert type(failure.error) is kind
    assert failure.outcome == outcome
    assert failure.error.headers().get("Retry-After") == retry_after
    may_help = retry_after is not None
    assert failure.is_lasting != may_help
    if kind is UpstreamError:
        assert failure.error.headers()["x-should-retry"] == str(may_help).lower()


# Each as its source has it: OpenAI's are recorded, the second being that of several inputs; vLLM's stands on top, not under
# `error`; TEI's (core/src/tokenization.rs) came with 422 before ErrorType::Validation was PAYLOAD_TOO_LARGE; Ollama's are of
# server/routes.go and of its runner; llama.cpp's of its server; the last is another gateway's.
TOO_LONG = [
    (400, nested("This model's maximum context length is 8192 tokens, however you requested 9000 tokens."), "input", 8192),
    (400, nested("Invalid 'input[1]': maximum context length is 8192 tokens."), "input[7]", 8192),
    (400, {"object": "error", "message": "This model's maximum context length is 512 tokens.", "code": 400}, "input", 512),
    (413, {"error": "`inputs` must have less than 512 tokens. Given: 600", "error_type": "Validation"}, "input", 512),
    (422, {"error": "`inputs` must have less than 512 tokens. Given: 600", "error_type": "Validation"}, "input", 512),
    (400, {"error": "the input length exceeds the context length"}, "input", 8192),
    (400, {"error": "input exceeds maximum context length and cannot be truncated further"}, "input", 8192),
    (500, nested("input is too large to process. increase the physical batch size"), "input", 8192),
    (400, nested("Invalid 'input[0]': maximum input length is 300 tokens."), "input[2]", 300),
]


@pytest.mark.parametrize(("status", "body", "where", "limit"), TOO_LONG)
def test_a_text_too_long_for_the_model_is_the_clients_to_shorten(status, body, where, limit):
    content = json.dumps(body).encode()
    several = inputs("a", "b", positions=(2, 7))
    failure = failures.of_answer(UpstreamResponse(status, {}, content), several, SUBJECT)
    if where == "input":  # it may be any of them, or all of them together: that is found out
        assert failure.is_undecided
        assert not isinstance(failure.error, InputTooLong)
    else:
        assert failure.error.message.startswith(f"Invalid '{where}': maximum input length is {limit} tokens. ")
    alone = failures.of_answer(UpstreamResponse(status, {}, content), inputs("a", positions=(5,)), SUBJECT)
    assert alone.error.message.startswith(f"Invalid 'input[5]': maximum input length is {limit} tokens. ")
    assert not alone.is_fault


def test_a_text_without_a_vector_is_named_where_it_is_alone():
    content = b'{"error": "embedding contains NaN or Inf values"}'  # normalize in server/routes.go of ollama/ollama
    alone = failures.of_answer(UpstreamResponse(400, {}, content), inputs("a", positions=(3,)), SUBJECT)
    assert isinstance(alone.error, Unembeddable)
    assert "'input[3]'" in alone.error.message
    assert failures.of_answer(UpstreamResponse(400, {}, content), inputs("a", "b"), SUBJECT).is_undecided


def test_a_spent_quota_is_no_matter_of_waiting():
    content = (
        b'{"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}'
    )
    failure = failures.of_answer(UpstreamResponse(429, {"Retry-After": "1"}, content), inputs("a"), SUBJECT)
    assert (failure.outcome, failure.may_retry, failure.is_lasting) == ("refused", False, True)


@pytest.mark.parametrize(
    ("value", "may_retry", "seconds"), [("1", True, 1), ("0.5", True, 1), ("30", False, 30), ("3600", False, 59)]
)
def test_a_429_is_sent_once_more_only_where_it_says_soon(value, may_retry, seconds):
    failure = failures.of_answer(UpstreamResponse(429, {"Retry-After": value}, b""), inputs("a"), SUBJECT)
    assert failure.may_retry == may_retry
    assert failure.error.headers()["Retry-After"] == str(seconds)
    assert not failure.is_fault


def test_a_retry_after_may_be_a_date():
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 18 < error_body.retry_after_seconds({"Retry-After": date}) <= 20
    assert error_body.retry_after_seconds({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert error_body.retry_after_seconds({"Retry-After": "soon"}) is None
    assert error_body.retry_after_seconds({}) is None


def test_all_outcomes_are_documented():
    document = (Path(__file__).parents[3] / "deploy" / "metrics.md").read_text(encoding="utf-8")
    [row] = [line for line in document.splitlines() if line.startswith("| `gateway_upstream_requests_total`")]
    outcomes = {failures.of_answer(UpstreamResponse(status, {}, b""), inputs("a"), SUBJECT).outcome for status in range(201, 600)}
    outcomes |= set(BROKEN) | {"ok", "cancelled", "open", "nonsense", "unembeddable", "too_long"}
    assert {each for each in outcomes if f"`{each}`" not in row} == set()


def refused(status, body, headers=None):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failures.of_answer(UpstreamResponse(status, headers or {}, content), inputs("a"), SUBJECT)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]),
        (400, {"error": {"code": "invalid_api_key", "message": "no"}}),
        (422, {"code": "InvalidApiKey", "message": "no"}),
        (401, {"detail": "no"}),
        (403, b""),
    ],
)
def test_a_wrong_key_is_the_operator_s_to_mend_whatever_status_it_is_said_with(status, body):
    failure = refused(status, body)
    assert failure.outcome == "refused"
    assert failure.is_lasting
    assert not failure.is_undecided
    assert "refused our key" in failure.error.message


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "invalid_api_key_format_of_a_text", "key", "api_key"])
def test_what_is_not_said_of_a_key_for_sure_may_hang_on_the_inputs(code):
    assert refused(400, {"error": {"code": code}}).is_undecided


def retry_info(delay):
    return [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"reason": "X"}, {"retryDelay": delay}]}}]


@pytest.mark.parametrize("status", [429, 503])
def test_a_delay_in_the_body_stands_for_a_retry_after(status):
    assert refused(status, retry_info("7s")).wait_seconds == 7
    assert refused(status, retry_info("0.5s")).may_retry
    assert refused(status, retry_info("7s"), {"Retry-After": "3"}).wait_seconds == 3
    for nonsense in ("7", "-7s", "s", "1e9s", 7, None, ["7s"], "7s\n"):
        assert refused(status, retry_info(nonsense)).wait_seconds == 0
