"""An OpenAPI operation: a handler's request and reply, and every status that it may return, with its error codes and headers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from operator import attrgetter

from gateway.api import response_headers
from gateway.api.error_format import JSON, ErrorBody
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.response_headers import ResponseHeader
from gateway.errors import (
    EngineUnavailable,
    GatewayError,
    HeadersTooLarge,
    InternalError,
    InvalidKey,
    InvalidValue,
    KeyInQuery,
    MissingKey,
    Overloaded,
    RateLimited,
    SlowRequest,
    StoreUnavailable,
)

PLAIN: Schema = {"schema": {"type": "string"}}
Errors = tuple[type[GatewayError], ...]
Headers = tuple[ResponseHeader, ...]

EVERYWHERE: Errors = (
    InvalidValue,
    SlowRequest,
    HeadersTooLarge,
    InternalError,
    Overloaded,
    EngineUnavailable,
)  # InvalidValue: invalid HTTP is a 400
WITH_KEY: Errors = (MissingKey, InvalidKey, KeyInQuery, StoreUnavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`reply` is a Struct that is served as JSON, its schema, or a media type. `also` are other statuses that are no errors, with
    their reply.

    `headers` come with the reply, `shared_headers` may come with the reply and with errors. `is_guarded`: the handler itself
    authenticates. `error_body` is the shape of its errors; another server's has no codes, may have statuses of its own, which
    `status_of` knows, and media types besides JSON.
    """

    name: str
    tag: str
    summary: str
    reply: type | Schema | str
    status: int = HTTPStatus.OK
    also: Mapping[int, type | None] = field(default_factory=dict)
    errors: Errors = ()
    headers: Headers = ()
    shared_headers: Headers = ()
    body: Schema | None = None
    error_body: type = ErrorBody
    status_of: Callable[[type[GatewayError]], int] = attrgetter("status")
    error_types: tuple[str, ...] = (JSON,)
    parameters: tuple[Schema, ...] = ()
    is_guarded: bool = False

    def where(self, paths: Collection[str]) -> "Operation":  # noqa: ARG002 - one operation depends on what else is served
        """Returns the operation of a gateway that serves these paths."""
        return self

    def describe(self, *, needs_key: bool) -> Schema:
        errors = (*EVERYWHERE, *(WITH_KEY if needs_key else ()), *self.errors)
        statuses = sorted({self.status, *self.also, *map(self.status_of, errors)})
        return {
            "operationId": self.name,
            "tags": [self.tag],
            "summary": self.summary,
            **({"parameters": list(self.parameters)} if self.parameters else {}),
            **({"requestBody": self.body} if self.body is not None else {}),
            "responses": {
                str(status): self.response(status, tuple(error for error in errors if self.status_of(error) == status))
                for status in statuses
            },
            **({} if needs_key else {"security": []}),
        }

    def response(self, status: int, errors: Errors) -> Schema:
        """Returns the response of one status: the reply, the errors, or either."""
        has_reply = status == self.status or status in self.also
        if not has_reply:
            shown = error_response(status, errors, self.shared_headers, error_body=self.error_body)
            return {**shown, "content": {**shown["content"], **{kind: PLAIN for kind in self.error_types if kind != JSON}}}
        reply = self.reply if status == self.status else self.also[status]
        headers = (*self.headers, *response_headers.SUCCESS)
        described = _describe_headers(response_headers.ALWAYS) | _describe_headers(self.shared_headers, never_sure=True)
        described |= _describe_headers(headers, never_sure=bool(errors)) | _describe_error_headers(errors, never_sure=True)
        return {"description": HTTPStatus(status).phrase, "headers": described, **_content_of(reply, errors, self.error_body)}


def error_response(status: int, errors: Errors, shared_headers: Headers = (), *, error_body: type = ErrorBody) -> Schema:
    headers = _describe_headers(response_headers.ALWAYS) | _describe_headers(shared_headers, never_sure=True)
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(sorted(code or 'null' for code in codes_of(errors)))}.",
        "headers": headers | _describe_error_headers(errors),
        "content": {JSON: {"schema": _error_schema(errors, error_body)}},
    }


def _content_of(reply: type | Schema | str | None, errors: Errors, error_body: type) -> Schema:
    if reply is None:
        return {}
    if isinstance(reply, str):
        return {"content": {reply: {"schema": {"type": "string"}}}}
    schema = reply if isinstance(reply, dict) else reference(reply)
    return {"content": {JSON: {"schema": {"anyOf": [schema, _error_schema(errors, error_body)]} if errors else schema}}}


def codes_of(errors: Errors) -> list[str | None]:
    return list(dict.fromkeys(error.code for error in errors))


def _types_of(errors: Errors) -> list[str]:
    return list(dict.fromkeys(kind for error in errors for kind in (LIMITED if error is RateLimited else (error.type,))))


LIMITED = response_headers.LIMITED_KINDS  # the type of a RateLimited is the limit that was exceeded


def _error_schema(errors: Errors, error_body: type) -> Schema:
    if error_body is not ErrorBody:
        return reference(error_body)
    narrowed = {"code": {"enum": codes_of(errors)}, "type": {"enum": _types_of(errors)}}
    return {"allOf": [reference(ErrorBody), {"properties": {"error": {"properties": narrowed}}}]}


def _describe_headers(headers: Headers, *, never_sure: bool = False) -> Schema:
    return {header.name: header.describe(is_sure=header.is_sure and not never_sure) for header in headers}


def _describe_error_headers(errors: Errors, *, never_sure: bool = False) -> Schema:
    """Returns the headers that some of these errors have. A header is required if all of them always have it."""
    described = {}
    for header in response_headers.ERRORS:
        has = [error for error in errors if issubclass(error, (*header.errors, *header.some_errors))]
        is_sure = not never_sure and all(issubclass(error, header.errors) for error in errors)
        if has:
            described[header.name] = header.describe(is_sure=is_sure)
    return described
