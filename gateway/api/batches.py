"""/v1/batches: makes, shows, lists and cancels batches, as OpenAI does. `gateway/batches/` works on them."""

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.access.access_control import AccessControl
from gateway.access.admission import Admission
from gateway.access.keys.key import Caller
from gateway.api import body
from gateway.api.error_format import JSON
from gateway.api.query import IntegerParameter, TextParameter
from gateway.batches.job import BatchJob
from gateway.batches.service import BatchService
from gateway.config import BatchSettings, ServerSettings
from gateway.errors import InvalidValue, UnknownFile
from gateway.files.store import FileStore
from gateway.wire import batches as wire

MAX_BODY_BYTES = 64 * 1024
MAX_REQUESTS = 64
INPUT_PURPOSE = "batch"
LIMIT = IntegerParameter(name="limit", default=20, most=100, description="How many at most.")
AFTER = TextParameter("after", "The id of the last batch of the page before.")

BatchesRequest = Request[Caller, None, State]


class BatchesHandler:
    """Answers the requests of /v1/batches; few at once, as each asks the database."""

    def __init__(self, service: BatchService, files: FileStore, settings: BatchSettings, server: ServerSettings) -> None:
        self.service = service
        self.files = files
        self.settings = settings
        self.server = msgspec.structs.replace(server, max_body_bytes=min(MAX_BODY_BYTES, server.max_body_bytes))
        self.admission = Admission(max_requests=MAX_REQUESTS, max_bytes=MAX_REQUESTS * MAX_BODY_BYTES)

    async def create(self, request: BatchesRequest, access: AccessControl) -> BatchJob:
        """Raises what is wrong with the body or the file it names, and InsufficientQuota."""
        access.refuse_spent(request.user)
        asked = wire.decode(await body.read_small(request.scope, request.receive, self.admission, self.server))
        await self.refuse_file(request.user.public_id, asked.input_file_id)
        return await self.service.create(asked, request.user.public_id)

    async def refuse_file(self, owner: str, file_id: str) -> None:
        """Raises InvalidValue for a file that no batch can be made of."""
        most = self.settings.max_file_bytes
        try:
            file = await self.files.get(owner, file_id)
        except UnknownFile as error:
            raise _wrong_file(error.message) from None
        if file.purpose != INPUT_PURPOSE:
            raise _wrong_file(f"expected a file of the purpose '{INPUT_PURPOSE}', not '{file.purpose}'.")
        if file.num_bytes > most:
            raise _wrong_file(f"the file has {file.num_bytes} bytes, and that of a batch at most {most}.")


def _wrong_file(reason: str) -> InvalidValue:
    return InvalidValue(f"Invalid 'input_file_id': {reason}", param="input_file_id")


def routes(handler: BatchesHandler, access: AccessControl) -> list[HTTPRouteHandler]:
    service = handler.service

    @post("/v1/batches", status_code=200)
    async def create_batch(request: BatchesRequest) -> Response[bytes]:
        return _reply(_batch_object(await handler.create(request, access)))

    @get("/v1/batches")
    async def list_batches(request: BatchesRequest) -> Response[bytes]:
        limit, after = LIMIT.read(request.query_params), AFTER.read(request.query_params)
        with handler.admission.enter():
            found = await service.page(request.user.public_id, limit=limit + 1, after=after)
        shown = tuple(map(_batch_object, found[:limit]))
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        return _reply(wire.BatchPage(data=shown, first_id=first, last_id=last, has_more=len(found) > limit))

    @get("/v1/batches/{batch_id:str}")
    async def retrieve_batch(request: BatchesRequest, batch_id: FromPath[str]) -> Response[bytes]:
        with handler.admission.enter():
            return _reply(_batch_object(await service.find(batch_id, request.user.public_id)))

    @post("/v1/batches/{batch_id:str}/cancel", status_code=200)
    async def cancel_batch(request: BatchesRequest, batch_id: FromPath[str]) -> Response[bytes]:
        with handler.admission.enter():
            return _reply(_batch_object(await service.cancel(batch_id, request.user.public_id)))

    return [create_batch, list_batches, retrieve_batch, cancel_batch]


def _batch_object(job: BatchJob) -> wire.BatchObject:
    errors = tuple(wire.BatchErrorObject(error.code, error.message, error.param, error.line) for error in job.errors)
    has_begun = job.in_progress_at is not None
    return wire.BatchObject(
        id=job.id,
        endpoint=job.endpoint,
        model=job.model,
        errors=wire.BatchErrors(data=errors) if errors else None,
        input_file_id=job.input_file_id,
        completion_window=job.completion_window,
        status=job.status,
        output_file_id=job.output_file_id,
        error_file_id=job.error_file_id,
        created_at=job.created_at,
        in_progress_at=job.in_progress_at,
        expires_at=job.expires_at,
        finalizing_at=job.finalizing_at,
        completed_at=job.completed_at,
        failed_at=job.failed_at,
        expired_at=job.expired_at,
        cancelling_at=job.cancelling_at,
        cancelled_at=job.cancelled_at,
        request_counts=wire.RequestCounts(job.total, job.completed, job.failed),
        usage=wire.BatchUsage(job.input_tokens, job.input_tokens) if has_begun else None,
        metadata=job.metadata,
    )


def _reply(shown: wire.BatchObject | wire.BatchPage) -> Response[bytes]:
    return Response(msgspec.json.encode(shown), media_type=JSON)
