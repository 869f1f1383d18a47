"""Every response header, declared once: for /openapi.json, and for CORS's list of readable headers.

A test compares the headers of real replies, and docs/api.md, with this list.
"""

from dataclasses import dataclass, field
from typing import Any, get_args

from gateway.api.request_log import OPENAI_VERSION
from gateway.errors import (
    MAX_RETRY_AFTER_SECONDS,
    BatchEnded,
    GatewayError,
    InsufficientQuota,
    LimitedKind,
    MethodNotAllowed,
    RateLimited,
    Unauthenticated,
    Unavailable,
    Unembeddable,
    UnsupportedEncoding,
    UpstreamError,
)

TEXT: dict[str, Any] = {"type": "string"}


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """`is_sure`: every such reply has it. `is_readable`: pages of other origins may read it.

    `errors` are the errors that always have it, `some_errors` those that may have it.
    """

    name: str
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: TEXT)
    is_sure: bool = False
    is_readable: bool = True
    errors: tuple[type[GatewayError], ...] = ()
    some_errors: tuple[type[GatewayError], ...] = ()

    def describe(self, *, is_sure: bool) -> dict[str, Any]:
        return {"description": self.description, "schema": self.schema, **({"required": True} if is_sure else {})}


def plain(name: str, description: str, *, is_sure: bool = False) -> ResponseHeader:
    """Returns a header for browsers and proxies, which pages of other origins may not read."""
    return ResponseHeader(name, description, is_sure=is_sure, is_readable=False)


ALWAYS = (
    ResponseHeader(
        "x-request-id", "The name of this request, for questions about it: the client's own, or a new one.", is_sure=True
    ),
    ResponseHeader("openai-version", "The version of OpenAI's API.", {"const": OPENAI_VERSION}, is_sure=True),
    plain("cache-control", "no-store; no-cache for the page's files; none for those of the docs, which may be kept."),
    plain("x-content-type-options", "nosniff", is_sure=True),
    plain("connection", "close, where this was the connection's last reply."),
    plain("keep-alive", "timeout: for how many seconds the connection may be used again."),
    plain("access-control-allow-origin", "Where `server.cors_origins` lets this origin's pages read the reply."),
    plain("access-control-expose-headers", "Which headers they may read."),
    plain("vary", "origin, where replies differ by it."),
)
SUCCESS = (
    ResponseHeader("openai-processing-ms", "Milliseconds until the reply began.", {"type": "integer", "minimum": 0}, is_sure=True),
)
ERRORS = (
    ResponseHeader(
        "retry-after",
        "Whole seconds after which to come back.",
        {"type": "integer", "minimum": 1, "maximum": MAX_RETRY_AFTER_SECONDS},
        errors=(RateLimited, Unavailable),
        some_errors=(UpstreamError,),
    ),
    ResponseHeader(
        "retry-after-ms",
        "The same in milliseconds, where many were refused together: some of it is chance, so that they do not come back together.",
        {"type": "integer", "minimum": 1},
        some_errors=(RateLimited,),
    ),
    ResponseHeader(
        "x-should-retry",
        "Whether a retry can help; OpenAI's SDKs obey it.",
        {"enum": ["true", "false"]},
        errors=(BatchEnded, InsufficientQuota, Unembeddable, UpstreamError),
    ),
    ResponseHeader("www-authenticate", "How to authenticate; whether the key that was sent is wrong.", errors=(Unauthenticated,)),
    ResponseHeader("accept-encoding", "Which encodings of a body are read.", errors=(UnsupportedEncoding,)),
    ResponseHeader("allow", "The methods that the path has.", errors=(MethodNotAllowed,)),
)
MODEL = (ResponseHeader("openai-model", "The model as the client named it.", is_sure=True),)
EMBEDDINGS = (
    *MODEL,
    ResponseHeader("server-timing", "Milliseconds of each stage.", is_sure=True),
    ResponseHeader("x-gateway-fingerprint", "Which vectors these are; vectors of two fingerprints do not mix.", is_sure=True),
    ResponseHeader(
        "x-gateway-cache", "How many of the inputs came from the cache.", {"type": "string", "pattern": "^hits=[0-9]+$"}
    ),
    ResponseHeader(
        "x-gateway-long-inputs",
        "How many inputs were longer than the model reads, and what became of them.",
        {"type": "string", "pattern": "^(chunked|shortened)=[0-9]+$"},
    ),
    ResponseHeader("x-gateway-prompt", "The prompt that was put before the texts, or none; where the request asked for one."),
    ResponseHeader(
        "x-gateway-quantization",
        "Which ranges int8 and uint8 vectors were made by; those of two ids do not mix.",
        {"type": "string", "pattern": "^[0-9a-f]+$"},
    ),
    ResponseHeader("x-gateway-member", "The server of a group that made the vectors."),
)
TEI_NUMBERS = {
    "x-compute-time": "TEI's: milliseconds until the reply began.",
    "x-compute-characters": "TEI's: characters of all inputs; a token id is one.",
    "x-compute-tokens": "TEI's: tokens that the model read.",
    "x-total-time": "TEI's: as x-compute-time.",
    "x-tokenization-time": "TEI's: milliseconds.",
    "x-queue-time": "TEI's: milliseconds.",
    "x-inference-time": "TEI's: milliseconds.",
}
TEI = (
    ResponseHeader("x-compute-type", "TEI's: what computed.", {"enum": ["cpu+optimized", "gpu+optimized"]}, is_sure=True),
    *(ResponseHeader(name, words, {"type": "integer", "minimum": 0}, is_sure=True) for name, words in TEI_NUMBERS.items()),
)
DURATION: dict[str, Any] = {"type": "string", "pattern": "^([0-9.]+(ms|h|m|s))+$"}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
LIMIT_WORDS = {
    "limit": ("The key's limit of {kind} a minute; where it has none, none of these headers is there.", WHOLE),
    "burst": ("How many {kind} may be sent at once after a rest.", WHOLE),
    "remaining": ("How many {kind} may be sent at this moment.", WHOLE),
    "reset": ("When the whole burst of {kind} is there again: 12ms, 1.5s, 6m0s.", DURATION),
}
LIMITED_KINDS = get_args(LimitedKind)
LIMITS = tuple(
    ResponseHeader(f"x-ratelimit-{what}-{kind}", words.format(kind=kind), schema)
    for kind in LIMITED_KINDS
    for what, (words, schema) in LIMIT_WORDS.items()
)
PAGES = (
    plain("content-security-policy", "Scripts and styles come from here alone."),
    plain("referrer-policy", "no-referrer"),
    plain("cross-origin-opener-policy", "same-origin"),
    plain("cross-origin-resource-policy", "same-origin"),
    plain("etag", "Of this content, for `if-none-match`."),
)
CONTENTS = (ResponseHeader("content-disposition", "attachment, and the file's name.", is_sure=True),)
PREFLIGHT = (
    plain("access-control-allow-methods", "Of a preflight."),
    plain("access-control-allow-headers", "Of a preflight: those that were asked for."),
    plain("access-control-max-age", "Of a preflight, in seconds."),
)
EVERY = (*ALWAYS, *SUCCESS, *ERRORS, *EMBEDDINGS, *TEI, *LIMITS, *PAGES, *CONTENTS, *PREFLIGHT)
READABLE = tuple(header.name for header in EVERY if header.is_readable)
