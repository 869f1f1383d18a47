"""The OpenAPI operations of /v1/batches, by method and path."""

from typing import Any

from gateway.api.batches import AFTER, LIMIT
from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import reference
from gateway.api.openapi.operation import Errors, Operation
from gateway.api.openapi.operations import OF_A_BODY, path_parameter
from gateway.errors import BatchEnded, InsufficientQuota, MissingParameter, RateLimited, StorageUnavailable, UnknownBatch
from gateway.wire.batches import REQUIRED, BatchBody, BatchObject, BatchPage

BATCHES_PARSED = (BatchBody,)
BATCHES_SERVED = (BatchObject, BatchPage)
WHAT_MUST_BE_THERE = {
    "required": list(REQUIRED),
    "properties": {name: {"not": {"enum": [None, ""]}} for name in REQUIRED},
}
BATCH_ID = path_parameter("batch_id", "Of a batch of this key.")


def _batch_operation(name: str, summary: str, reply: type, *, errors: Errors = (), **more: Any) -> Operation:
    return Operation(name=name, tag="batches", summary=summary, reply=reply, errors=(StorageUnavailable, *errors), **more)


BATCHES_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/batches"): _batch_operation(
        "createBatch",
        "Make a batch of an uploaded file of requests",
        BatchObject,
        body={"required": True, "content": {JSON: {"schema": {"allOf": [reference(BatchBody), WHAT_MUST_BE_THERE]}}}},
        errors=(*OF_A_BODY, MissingParameter, RateLimited, InsufficientQuota),
    ),
    ("GET", "/v1/batches"): _batch_operation(
        "listBatches", "List the key's batches, the newest first", BatchPage, errors=(UnknownBatch,),
        parameters=(LIMIT.describe(), AFTER.describe()),
    ),
    ("GET", "/v1/batches/{batch_id:str}"): _batch_operation(
        "retrieveBatch", "Describe a batch", BatchObject, errors=(UnknownBatch,), parameters=(BATCH_ID,)
    ),
    ("POST", "/v1/batches/{batch_id:str}/cancel"): _batch_operation(
        "cancelBatch", "Cancel a batch; what is done is kept", BatchObject, errors=(UnknownBatch, BatchEnded),
        parameters=(BATCH_ID,),
    ),
}  # fmt: skip
