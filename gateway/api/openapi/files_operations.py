"""The OpenAPI operations of /v1/files, by method and path."""

from typing import Any

from gateway.api.files import AFTER, BYTES, LIMIT, ORDER, PURPOSE
from gateway.api.openapi.json_schema import reference
from gateway.api.openapi.operation import Operation
from gateway.api.openapi.operations import path_parameter
from gateway.api.response_headers import CONTENTS
from gateway.api.upload import FORM
from gateway.errors import (
    FileTooLarge,
    InvalidType,
    MissingParameter,
    StorageQuotaExceeded,
    StorageUnavailable,
    UnknownFile,
    UnsupportedEncoding,
)
from gateway.wire.files import FileDeleted, FileList, FileObject, FileUpload

FILES_PARSED = (FileUpload,)
FILES_SERVED = (FileObject, FileList, FileDeleted)
FILE_ID = path_parameter("file_id", "Of a file of this key.")


def _of_file(name: str, summary: str, reply: type | str, **more: Any) -> Operation:
    errors = (UnknownFile, StorageUnavailable)
    return Operation(name=name, tag="files", summary=summary, reply=reply, errors=errors, parameters=(FILE_ID,), **more)


FILES_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/files"): Operation(
        name="createFile",
        tag="files",
        summary="Upload a file",
        reply=FileObject,
        body={"required": True, "content": {FORM: {"schema": reference(FileUpload)}}},
        errors=(InvalidType, MissingParameter, FileTooLarge, UnsupportedEncoding, StorageQuotaExceeded, StorageUnavailable),
    ),
    ("GET", "/v1/files"): Operation(
        name="listFiles",
        tag="files",
        summary="List the key's files",
        reply=FileList,
        errors=(UnknownFile, StorageUnavailable),
        parameters=tuple(parameter.describe() for parameter in (PURPOSE, LIMIT, ORDER, AFTER)),
    ),
    ("GET", "/v1/files/{file_id:str}"): _of_file("retrieveFile", "Describe a file", FileObject),
    ("DELETE", "/v1/files/{file_id:str}"): _of_file("deleteFile", "Delete a file", FileDeleted),
    ("GET", "/v1/files/{file_id:str}/content"): _of_file("downloadFile", "The content of a file", BYTES, headers=CONTENTS),
}
