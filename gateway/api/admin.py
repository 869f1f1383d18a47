"""/admin/keys and /admin/usage: what `gateway keys` does, over HTTP, for keys with the admin scope. Off unless configured."""

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar

import msgspec
import orjson
from litestar import Request, Response, get, patch, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.access.admission import Admission
from gateway.access.key_access import KeyAccess
from gateway.access.keys import audit
from gateway.access.keys.key import Caller, new_key
from gateway.access.keys.policy import InvalidPolicy, policy_of
from gateway.access.usage.period import SPANS, duration, since
from gateway.access.worker import WorkerThread
from gateway.api import body
from gateway.api.error_handler import JSON
from gateway.config import ServerSettings
from gateway.errors import InsufficientPermissions, InvalidType, InvalidValue, OperatorError, StoreUnavailable
from gateway.log import get_logger
from gateway.wire.json_body import invalid_json, without_byte_order_mark

MAX_BODY_BYTES = 64 * 1024
MAX_REQUESTS = 16
MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_OFFSET = 1_000_000
MAX_HISTORY = 20
CREATED = 201
RENEW_SECONDS = 2.0  # for the snapshot to follow a change that is answered

AdminRequest = Request[Caller, None, State]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = get_logger()


class AdminService:
    """Where an admin's requests are worked on: few at once, in a thread of their own, apart from the room of embedding requests."""

    def __init__(self, access: KeyAccess, settings: ServerSettings) -> None:
        self.key_snapshot = access.snapshot
        self.store = access.store
        self.usage_store = access.usage_store
        self.settings = msgspec.structs.replace(settings, max_body_bytes=min(MAX_BODY_BYTES, settings.max_body_bytes))
        self.admission = Admission(max_requests=MAX_REQUESTS, max_bytes=MAX_REQUESTS * MAX_BODY_BYTES)
        self.worker = WorkerThread("admin")

    async def table(self, request: AdminRequest) -> dict[str, Any]:
        """The JSON object of the body; no body is an empty one. Raises what `body.read` raises, InvalidJSON and InvalidType."""
        with self.admission.enter() as permit:
            raw = await body.read(request.scope, request.receive, permit, self.settings)
        content = without_byte_order_mark(raw)
        try:
            table = msgspec.json.decode(content) if content else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_json(content, error, start=len(raw) - len(content)) from None
        if not isinstance(table, dict):
            raise InvalidType("The body must be a JSON object.")
        return table

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The store's answer. Raises StoreUnavailable where there is none, InvalidValue for terms that cannot be."""
        with self.admission.enter():
            try:
                return await self.worker.run(work, *args, **kwargs)
            except InvalidPolicy as error:
                raise InvalidValue(f"Invalid value: {error}.", param=error.field or None) from None
            except OperatorError as error:
                log.warning("admin_request_failed", reason=str(error))
                raise StoreUnavailable from None

    async def apply_change(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """As `run`, for what changes keys: when it returns, this gateway's own snapshot has the change."""
        result = await self.run(work, *args, **kwargs)
        with suppress(TimeoutError):  # it was made all the same; the snapshot follows
            await asyncio.wait_for(self.key_snapshot.renew(), RENEW_SECONDS)
        return result

    def close(self) -> None:
        self.worker.close()


def routes(service: AdminService) -> list[HTTPRouteHandler]:
    @get("/admin/keys")
    async def list_keys(request: AdminRequest) -> Response[bytes]:
        require_admin(request)
        limit, after = number(request, "limit", DEFAULT_PAGE, most=MAX_PAGE), request.query_params.get("after")
        found = await service.run(service.store.page, limit=limit + 1, after=after)
        return json_response({"object": "list", "data": [each.to_dict() for each in found[:limit]], "has_more": len(found) > limit})

    @post("/admin/keys", status_code=CREATED)
    async def create_key(request: AdminRequest) -> Response[bytes]:
        by, table = require_admin(request), await service.table(request)
        text, key = new_key()
        made = await service.apply_change(lambda: service.store.add(key, policy_of(table), by=by))
        return json_response({**made.to_dict(), "key": text}, status_code=CREATED)

    @get("/admin/keys/{public_id:str}")
    async def get_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        require_admin(request)
        found = await service.run(service.store.get, public_id)
        events = await service.run(audit.history, service.store.database, public_id, limit=MAX_HISTORY)
        return json_response({**found.to_dict(), "history": [event.to_dict() for event in events]})

    @patch("/admin/keys/{public_id:str}")
    async def limit_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        by, table = require_admin(request), await service.table(request)
        return json_response((await service.apply_change(service.store.amend, public_id, table, by=by)).to_dict())

    @post("/admin/keys/{public_id:str}/revoke", status_code=200)
    async def revoke_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        by = require_admin(request)
        return json_response((await service.apply_change(service.store.revoke, public_id, by=by)).to_dict())

    @post("/admin/keys/{public_id:str}/rotate", status_code=200)
    async def rotate_key(request: AdminRequest, public_id: FromPath[str]) -> Response[bytes]:
        by, table = require_admin(request), await service.table(request)
        grace = grace_of(table)
        text, key = new_key(public_id)
        rotated = await service.apply_change(service.store.rotate, key, grace=grace, by=by)
        return json_response({**rotated.to_dict(), "key": text})

    @get("/admin/usage")
    async def usage(request: AdminRequest) -> Response[bytes]:
        require_admin(request)
        limit, offset = (
            number(request, "limit", DEFAULT_PAGE, most=MAX_PAGE),
            number(request, "offset", 0, most=MAX_OFFSET, least=0),
        )
        found = await service.run(
            service.usage_store.report, by=span(request), since=first_hour(request), key=request.query_params.get("key_id"),
            limit=limit + 1, offset=offset,
        )  # fmt: skip
        rows = [dataclasses.asdict(row) for row in found[:limit]]
        return json_response({"object": "list", "data": rows, "has_more": len(found) > limit})

    return [list_keys, create_key, get_key, limit_key, revoke_key, rotate_key, usage]


def require_admin(request: AdminRequest) -> str:
    """Who it is, for the audit trail. Raises InsufficientPermissions."""
    if not request.user.is_admin:
        raise InsufficientPermissions
    return f"key:{request.user.public_id}"


def json_response(table: dict[str, Any], *, status_code: int = 200) -> Response[bytes]:
    return Response(orjson.dumps(table), status_code=status_code, media_type=JSON)


def number(request: AdminRequest, name: str, default: int, *, most: int, least: int = 1) -> int:
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(most)) and least <= int(given) <= most):
        raise InvalidValue(f"Invalid value for '{name}': expected an integer from {least} to {most}.", param=name)
    return int(given)


def span(request: AdminRequest) -> Literal["hour", "day", "month"]:
    given = request.query_params.get("by", "day")
    for known in SPANS:
        if given == known:
            return known
    raise InvalidValue(f"Invalid value for 'by': choose from {', '.join(SPANS)}.", param="by")


def first_hour(request: AdminRequest) -> str:
    try:
        return since(request.query_params.get("since", "30d"))
    except ValueError as error:
        raise InvalidValue(f"Invalid value for 'since': {error}.", param="since") from None


def grace_of(table: dict[str, Any]) -> timedelta:
    if unknown := set(table) - {"grace"}:
        raise InvalidValue(f"Invalid value: {min(unknown)[:64]}: unknown; known is grace.", param=min(unknown)[:64])
    given = table.get("grace", "24h")
    if not isinstance(given, str):
        raise InvalidType("Invalid type for 'grace': expected a duration, such as 24h.", param="grace")
    try:
        return duration(given)
    except ValueError as error:
        raise InvalidValue(f"Invalid value for 'grace': {error}.", param="grace") from None
