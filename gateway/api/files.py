"""/v1/files: what OpenAI's SDKs do with files. A key sees its own files alone."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Struct

from gateway.access.admission import Admission
from gateway.access.keys.key import Caller
from gateway.api.error_format import JSON
from gateway.api.query import ChoiceParameter, IntegerParameter, TextParameter
from gateway.api.request_log import record_of
from gateway.api.upload import Upload
from gateway.config import FileSettings
from gateway.files.store import MAX_PAGE, FileStore
from gateway.files.stored_file import StoredFile
from gateway.files.table import Order
from gateway.wire.files import BATCH, FileDeleted, FileList, FileObject, file_form

LIMIT = IntegerParameter(name="limit", default=MAX_PAGE, most=MAX_PAGE, description="How many at most.")
AFTER = TextParameter("after", "The id of the last file of the page before.")
PURPOSE = TextParameter("purpose", "Only files of this purpose.")
ORDER: ChoiceParameter[Order] = ChoiceParameter("order", "desc", ("asc", "desc"), "By the time of their creation.")
BYTES = "application/octet-stream"

FileRequest = Request[Caller, None, State]


def routes(store: FileStore, settings: FileSettings) -> list[HTTPRouteHandler]:
    admission = Admission(max_requests=settings.max_uploads, max_bytes=0)

    @post("/v1/files", status_code=200)
    async def create_file(request: FileRequest) -> Response[bytes]:
        with admission.enter():
            upload = Upload(request.scope, request.receive, settings)
            async with await store.create(
                request.user.public_id, num_bytes=upload.num_reserved_bytes, max_bytes=settings.max_file_bytes
            ) as writer:
                await upload.read(writer)
                form = file_form(upload.fields)
                expiry = form.expires_after_seconds
                if expiry is None and form.purpose == BATCH:
                    expiry = settings.batch_expiry_seconds
                file = await writer.commit(purpose=form.purpose, filename=upload.filename or "", expires_after_seconds=expiry)
        return _json_response(_file_object(file))

    @get("/v1/files")
    async def list_files(request: FileRequest) -> Response[bytes]:
        query = request.query_params
        limit = LIMIT.read(query)
        found = await store.list(
            request.user.public_id, purpose=PURPOSE.read(query), limit=limit + 1, order=ORDER.read(query), after=AFTER.read(query)
        )
        shown = found[:limit]
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        data = tuple(map(_file_object, shown))
        return _json_response(FileList(data=data, first_id=first, last_id=last, has_more=len(found) > limit))

    @get("/v1/files/{file_id:str}")
    async def get_file(request: FileRequest, file_id: FromPath[str]) -> Response[bytes]:
        return _json_response(_file_object(await store.get(request.user.public_id, file_id)))

    @delete("/v1/files/{file_id:str}", status_code=200)
    async def delete_file(request: FileRequest, file_id: FromPath[str]) -> Response[bytes]:
        await store.delete(request.user.public_id, file_id)
        return _json_response(FileDeleted(id=file_id))

    @get("/v1/files/{file_id:str}/content")
    async def get_content(request: FileRequest, file_id: FromPath[str]) -> Stream:
        file = await store.get(request.user.public_id, file_id)
        chunks = aiter(store.read(file))
        is_head = record_of(request.scope).method == "HEAD"
        first = b"" if is_head else await anext(chunks, b"")  # a content that cannot be read is an error, not half a reply
        headers = {"content-length": str(file.num_bytes), "content-disposition": _disposition(file.filename)}
        return Stream(_joined(first, chunks), media_type=BYTES, headers=headers)

    return [create_file, list_files, get_file, delete_file, get_content]


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
        async for chunk in rest:
            yield chunk


def _file_object(file: StoredFile) -> FileObject:
    expires_at = int(file.expires_at) if file.expires_at is not None else None
    return FileObject(
        id=file.id, purpose=file.purpose, filename=file.filename, bytes=file.num_bytes, created_at=int(file.created_at),
        expires_at=expires_at,
    )  # fmt: skip


def _json_response(reply: Struct) -> Response[bytes]:
    return Response(msgspec.json.encode(reply), media_type=JSON)


def _disposition(filename: str) -> str:
    """RFC 6266: the name in ASCII for old clients, and as it is."""
    plain = "".join(char if char.isascii() and char not in '"\\' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
