"""/admin/keys and /admin/usage: what `gateway keys` does, over HTTP, for keys with the admin scope. Off unless configured."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import msgspec
from litestar import Request, Response, get, patch, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from gateway.access.admission import Admission
from gateway.access.key_access import KeyAccess
from gateway.access.keys import audit
from gateway.access.keys.key import Caller, new_key
from gateway.access.keys.policy import InvalidPolicy, policy_of
from gateway.access.usage.period import duration
from gateway.access.worker import WorkerThread
from gateway.api import body
from gateway.api.admin_schema import (
    AFTER,
    BY,
    KEY_ID,
    LIMIT,
    OFFSET,
    SINCE,
    KeyPage,
    KeyRotation,
    KeyWithHistory,
    KeyWithSecret,
    UsagePage,
)
from gateway.api.error_format import JSON
from gateway.config import ServerSettings
from gateway.errors import (
    ClientError,
    InsufficientPermissions,
    InvalidJSON,
    InvalidType,
    InvalidValue,
    OperatorError,
    StoreUnavailable,
)
from gateway.log import get_logger
from gateway.wire.json_body import parse_body, without_byte_order_mark

MAX_BODY_BYTES = 64 * 1024
MAX_REQUESTS = 16
MAX_HISTORY = 20
CREATED = 201
RENEW_SECONDS = 2.0  # that a reply waits for this gateway's key snapshot to have the change

AdminRequest = Request[Caller, None, State]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = get_logger()


class AdminService:
    """Runs admin requests: few at once, in their own thread, with an admission separate from that of embedding requests."""

    def __init__(self, access: KeyAccess, settings: ServerSettings) -> None:
        self.key_snapshot = access.snapshot
        self.store = access.store
        self.usage_store = access.usage_store
        self.settings = msgspec.structs.replace(settings, max_body_bytes=min(MAX_BODY_BYTES, settings.max_body_bytes))
        self.admission = Admission(max_requests=MAX_REQUESTS, max_bytes=MAX_REQUESTS * MAX_BODY_BYTES)
        self.worker = WorkerThread("admin")

    async def table(self, request: AdminRequest) -> dict[str, Any]:
        """Returns the body's JSON object; an empty one if there is no body.

        Raises what `body.read_small` raises, InvalidJSON, and InvalidType if it is not an object.
        """
        raw = await body.read_small(request.scope, request.receive, self.admission, self.settings)
        table = parse_body(raw, msgspec.json.decode, _out_of_range) if without_byte_order_mark(raw) else {}
        if not isinstance(table, dict):
            raise InvalidType("The body must be a JSON object.")
        return table

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Returns the store's result. Raises StoreUnavailable if the store fails, InvalidValue for an invalid policy."""
        with self.admission.enter():
            try:
                return await self.worker.run(work, *args, **kwargs)
            except InvalidPolicy as error:
                raise InvalidValue(f"Invalid value: {error}.", param=error.field or None) from None
            except OperatorError as error:
                log.warning("admin_request_failed", reason=str(error))
                raise StoreUnavailable from None

    async def apply_change(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """As `run`, for a change of keys. Waits until this gateway's own snapshot has the change, for RENEW_SECONDS at most."""
        result = await self.run(work, *args, **kwargs)
        with suppress(TimeoutError):  # the store has the change; the snapshot will follow
            await asyncio.wait_for(self.key_snapshot.renew(), RENEW_SECONDS)
        return result

    def close(self) -> None:
        self.worker.close()


def routes(service: AdminService) -> list[HTTPRouteHandler]:
    @get("/admin/keys")
    async def list_keys(request: AdminRequest) -> Response[bytes]:
        _require_admin(request)
        limit, after = LIMIT.read(request.query_params), AFTER.read(request.query_params)
        found = await service.run(service.store.page, limit=limit + 1, after=after)
        return _json_response(KeyPage(data=tuple(each.view() for each in found[:limit]), has_more=len(found) > limit))

    @post("/admin/keys", status_code=CREATED)
    async def create_key(request: AdminRequest) -> Response[bytes]:
        by, table = _require_admin(request), await service.table(request)
        text, key = new_key()
        made = await service.apply_change(lambda: service.store.add(key, policy_of(table), by=by))
        return _json_response(KeyWithSecret(**made.view().fields(), key=text), status_code=CREATED)

    @get("/admin/keys/{public_id:str}")
    async def get_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        _require_admin(request)
        found = await service.run(service.store.get, public_id)
        events = await service.run(audit.history, service.store.database, public_id, limit=MAX_HISTORY)
        return _json_response(KeyWithHistory(**found.view().fields(), history=tuple(event.view() for event in events)))

    @patch("/admin/keys/{public_id:str}")
    async def limit_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        by, table = _require_admin(request), await service.table(request)
        return _json_response((await service.apply_change(service.store.amend, public_id, table, by=by)).view())

    @post("/admin/keys/{public_id:str}/revoke", status_code=200)
    async def revoke_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        by = _require_admin(request)
        return _json_response((await service.apply_change(service.store.revoke, public_id, by=by)).view())

    @post("/admin/keys/{public_id:str}/rotate", status_code=200)
    async def rotate_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        by, table = _require_admin(request), await service.table(request)
        grace = grace_of(table)
        text, key = new_key(public_id)
        rotated = await service.apply_change(service.store.rotate, key, grace=grace, by=by)
        return _json_response(KeyWithSecret(**rotated.view().fields(), key=text))

    @get("/admin/usage")
    async def usage(request: AdminRequest) -> Response[bytes]:
        _require_admin(request)
        query = request.query_params
        limit = LIMIT.read(query)
        found = await service.run(
            service.usage_store.report, by=BY.read(query), since=SINCE.read(query), key=KEY_ID.read(query),
            limit=limit + 1, offset=OFFSET.read(query),
        )  # fmt: skip
        return _json_response(UsagePage(data=tuple(found[:limit]), has_more=len(found) > limit))

    return [list_keys, create_key, get_key, limit_key, revoke_key, rotate_key, usage]


def _out_of_range(_: msgspec.ValidationError) -> ClientError:
    """The one error of valid JSON that is decoded to no type."""
    return InvalidJSON("it has a number that is out of range")


def _require_admin(request: AdminRequest) -> str:
    """Returns the caller's name for the audit trail. Raises InsufficientPermissions if the key has no admin scope."""
    if not request.user.is_admin:
        raise InsufficientPermissions
    return f"key:{request.user.public_id}"


def _json_response(reply: Struct, *, status_code: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(reply), status_code=status_code, media_type=JSON)


def grace_of(table: dict[str, Any]) -> timedelta:
    """Returns the grace period of a rotation. Raises InvalidType, InvalidValue."""
    try:
        return duration(msgspec.convert(table, KeyRotation).grace)
    except msgspec.ValidationError as error:
        raise _wrong_grace(table, str(error)) from None
    except ValueError as error:
        raise InvalidValue(f"Invalid value for 'grace': {error}.", param="grace") from None


def _wrong_grace(table: dict[str, Any], reason: str) -> ClientError:
    if unknown := sorted(set(table) - set(KeyRotation.__struct_fields__)):
        return InvalidValue(f"Invalid value: {unknown[0][:64]}: unknown; known is grace.", param=unknown[0][:64])
    if "got `" in reason:
        return InvalidType("Invalid type for 'grace': expected a duration, such as 24h.", param="grace")
    return InvalidValue("Invalid value for 'grace': write a number and one of s, m, h, d, w, such as 24h.", param="grace")
