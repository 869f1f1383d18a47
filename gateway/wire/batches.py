"""The bodies of /v1/batches: what creates a batch, and the batch object. Source: OpenAI's OpenAPI 2.3.0."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from gateway.errors import ClientError, InvalidValue, MissingParameter
from gateway.wire.json_body import parse_body, wrong_field
from gateway.wire.response import Count

Endpoint = Literal["/v1/embeddings", "/v1/rerank"]
Window = Literal["24h"]
BatchStatus = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
MAX_METADATA, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
MIN_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS = 3600, 2_592_000

Form = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]
OptionText = Annotated[str, Meta(min_length=1, max_length=256)]
Moment = Annotated[int | None, Meta(description="In Unix seconds.")]
MetadataKey = Annotated[str, Meta(max_length=MAX_KEY_CHARS)]
MetadataValue = Annotated[str, Meta(max_length=MAX_VALUE_CHARS)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MAX_METADATA)]


class OutputExpiry(Struct, frozen=True):
    """When the files of a batch's replies are deleted: so long after they were made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=MIN_EXPIRY_SECONDS, le=MAX_EXPIRY_SECONDS)]


class InputFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """How the input file is read, where its name and its first bytes do not show it. The words are those of `gateway embed`."""

    format: Annotated[Form | None, Meta(description="By default what the file's name and first bytes say.")] = None
    column: Annotated[OptionText | None, Meta(description="The column, or the field, of the texts. Default: `text`.")] = None
    id: Annotated[OptionText | None, Meta(description="That of the ids. Default: `id`, if there is one.")] = None
    no_id: Annotated[bool | None, Meta(description="Whether the number of its line is each row's id.")] = None
    delimiter: Annotated[OptionText | None, Meta(description="Of CSV and TSV.")] = None
    quote: Annotated[OptionText | None, Meta(description="Of CSV and TSV; `none` for none.")] = None
    encoding: Annotated[OptionText | None, Meta(description="Default: UTF-8, or what a byte order mark says.")] = None


class BatchBody(Struct, frozen=True):
    """The body. `null` equals absent, and unknown fields are ignored."""

    input_file_id: Annotated[str | None, Meta(description="A file of the purpose `batch`, with a request in each line.")] = None
    endpoint: Annotated[Endpoint | None, Meta(description="Where all requests of the file are to go.")] = None
    completion_window: Annotated[Window | None, Meta(description="24h is the only one.")] = None
    metadata: Annotated[Metadata | None, Meta(description="The client's own notes.")] = None
    model: Annotated[str | None, Meta(description="An extension: the model of requests that name none.")] = None
    input_format: Annotated[InputFormat | None, Meta(description="An extension: how a file is read that is no JSON lines.")] = None
    output_expires_after: Annotated[
        OutputExpiry | None, Meta(description="When the files of its replies are deleted; by default as other files of batches.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequestBody:
    """A parsed body: all that is required is there."""

    input_file_id: str
    endpoint: Endpoint
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    model: str | None = None
    input_format: InputFormat | None = None


class BatchErrorObject(Struct, frozen=True):
    """Why a batch failed."""

    code: str
    message: str
    param: str | None
    line: Annotated[int | None, Meta(description="Of the input file, from 1.")]


class BatchErrors(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[BatchErrorObject, ...]


class RequestCounts(Struct, frozen=True):
    """Requests of the file, and how many are answered."""

    total: Count
    completed: Count
    failed: Count


class InputTokensDetails(Struct, frozen=True):
    cached_tokens: Count = 0


class OutputTokensDetails(Struct, frozen=True):
    reasoning_tokens: Count = 0


class BatchUsage(Struct, frozen=True):
    """Tokens by the model's own tokenizer, of the requests that are answered."""

    input_tokens: Count
    total_tokens: Count
    output_tokens: Count = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()


class BatchObject(Struct, frozen=True, kw_only=True):
    """A batch. All fields are always present."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Endpoint
    model: Annotated[str | None, Meta(description="Of the first request, once the file was validated.")]
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: Annotated[str | None, Meta(description="The file of the requests that succeeded.")]
    error_file_id: Annotated[str | None, Meta(description="The file of the requests that failed.")]
    created_at: int
    in_progress_at: Moment
    expires_at: int
    finalizing_at: Moment
    completed_at: Moment
    failed_at: Moment
    expired_at: Moment
    cancelling_at: Moment
    cancelled_at: Moment
    request_counts: RequestCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None


class BatchPage(Struct, frozen=True, kw_only=True):
    """A page of batches, the newest first."""

    object: Literal["list"] = "list"
    data: tuple[BatchObject, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


EXPECTED = {
    "input_file_id": "a string",
    "endpoint": "a string",
    "completion_window": "a string",
    "metadata": "an object whose values are strings",
    "model": "a string",
    "output_expires_after": "an object",
    "input_format": "an object",
    **dict.fromkeys(("format", "column", "id", "delimiter", "quote", "encoding"), "a string"),
    "no_id": "a boolean",
    "anchor": "a string",
    "seconds": "an integer",
}
ALLOWED: dict[str, str] = {
    "endpoint": f". Supported values: {', '.join(map(repr, get_args(Endpoint)))}.",
    "completion_window": ". Supported values: '24h'.",
    "metadata": f": at most {MAX_METADATA} pairs, keys of {MAX_KEY_CHARS} characters, and values of {MAX_VALUE_CHARS}.",
    "input_format": f": it has {', '.join(InputFormat.__struct_fields__)}; 'format' is one of {', '.join(get_args(Form))}.",
    "output_expires_after": f": 'anchor' must be 'created_at', 'seconds' from {MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}.",
}
REQUIRED = ("input_file_id", "endpoint", "completion_window")
decoder = msgspec.json.Decoder(BatchBody)


def decode(raw: bytes) -> BatchRequestBody:
    """Parses a body. Raises a ClientError that names what is wrong."""
    body = parse_body(raw, decoder.decode, _wrong_field)
    for name in REQUIRED:
        if not getattr(body, name):
            raise MissingParameter(name)
    if body.model is not None and "\0" in body.model:  # which PostgreSQL does not store
        raise InvalidValue("Invalid 'model': a model's name has no NUL character.", param="model")
    return BatchRequestBody(
        input_file_id=body.input_file_id or "",
        endpoint=body.endpoint or "/v1/embeddings",
        completion_window=body.completion_window or "24h",
        metadata=body.metadata,
        model=body.model,
        input_format=body.input_format,
        output_expires_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
    )


def _wrong_field(error: msgspec.ValidationError) -> ClientError:
    if "`key` in `$.metadata" in str(error):
        return InvalidValue(f"Invalid value for 'metadata'{ALLOWED['metadata']}", param="metadata")
    if "missing required field" in str(error):
        return InvalidValue(
            f"Invalid value for 'output_expires_after'{ALLOWED['output_expires_after']}", param="output_expires_after"
        )
    return wrong_field(error, EXPECTED, ALLOWED)
