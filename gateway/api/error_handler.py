"""Translates every error to a response, in one place. The shape is that of the request's door (`error_format`)."""

from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from gateway.api.error_format import JSON, openai_error
from gateway.api.request_log import PRIVATE_HEADERS, record_of, request_id_from
from gateway.errors import ClientGone, GatewayError, InternalError, InvalidValue, MethodNotAllowed, UnknownURL
from gateway.log import get_logger
from gateway.server.protocol import ErrorResponse

CLIENT_GONE = "client_gone"  # the outcome of such a request
CLIENT_GONE_STATUS = 499  # nginx's number; only the log and the metrics show it

log = get_logger()


def handle_error(request: Request[object, object, State], error: Exception) -> Response[bytes]:
    """Litestar's one exception handler."""
    record = record_of(request.scope)
    if isinstance(error, ClientGone):
        record.outcome = CLIENT_GONE
        return Response(b"", status_code=CLIENT_GONE_STATUS, media_type=JSON)
    failure = translate(error, request)
    record.fail(failure)
    shown = record.error_format(failure)
    return Response(
        shown.body, status_code=shown.status, headers=failure.headers(), media_type=shown.content_type.partition(";")[0]
    )


def translate(error: Exception, request: Request[object, object, State]) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    record = record_of(request.scope)
    if isinstance(error, NotFoundException):
        return UnknownURL(record.method, record.path)
    if isinstance(error, MethodNotAllowedException):
        allow = (error.headers or {}).get("allow", "").replace("GET", "GET, HEAD")  # Edge answers HEAD by GET
        return MethodNotAllowed(record.method, record.path, allow=allow)
    if isinstance(error, HTTPException) and error.status_code < InternalError.status:
        return InvalidValue("Your request could not be understood.")
    log.error("internal_error", request_id=record.request_id, exc_info=error)
    return InternalError(record.request_id)


def error_response(error: GatewayError) -> ErrorResponse:
    """Returns the error response of a connection that has no request yet, for example one connection too many."""
    request_id = request_id_from(None)
    own = {name.decode(): value.decode() for name, value in PRIVATE_HEADERS}
    return ErrorResponse(
        request_id, {"content-type": JSON, **error.headers(), "x-request-id": request_id, **own}, openai_error(error).body
    )
