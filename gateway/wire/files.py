"""OpenAI's words for files: the fields of an upload, and the objects that are served."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

from gateway.errors import InvalidType, InvalidValue, MissingParameter

UploadPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
PURPOSES: tuple[str, ...] = get_args(UploadPurpose)
BATCH = "batch"
MIN_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS = 3600, 2_592_000  # 1 hour, 30 days: OpenAI's
MAX_FILENAME_CHARS = 255
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")  # and what turns a text around
UNNAMED = "upload"


class FileObject(Struct, frozen=True, kw_only=True):
    """A file."""

    object: Literal["file"] = "file"
    id: str
    purpose: str
    filename: str
    bytes: Annotated[int, Meta(description="Its size.")]
    created_at: Annotated[int, Meta(description="Unix seconds.")]
    expires_at: Annotated[int | None, Meta(description="Unix seconds; null if it stays until it is deleted.")]
    status: Annotated[Literal["processed"], Meta(description="Deprecated by OpenAI, and always this.")] = "processed"
    status_details: Annotated[str | None, Meta(description="Deprecated by OpenAI, and always null.")] = None


class FileList(Struct, frozen=True, kw_only=True):
    """A page of a key's files."""

    object: Literal["list"] = "list"
    data: tuple[FileObject, ...]
    first_id: Annotated[str | None, Meta(description="Null if there is no file.")]
    last_id: Annotated[str | None, Meta(description="For `after` of the next page.")]
    has_more: bool


class FileDeleted(Struct, frozen=True, kw_only=True):
    """A file that was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileUpload(Struct, frozen=True, kw_only=True):
    """The parts of an upload."""

    together: ClassVar[dict[str, object]] = {"dependentRequired": {ANCHOR: [SECONDS], SECONDS: [ANCHOR]}}

    file: Annotated[
        str, Meta(min_length=1, description="The content: a part with a filename.", extra_json_schema={"format": "binary"})
    ]
    purpose: UploadPurpose
    expires_after_anchor: Annotated[Literal["created_at"] | UnsetType, Meta(description="With seconds: when the file expires.")] = (
        field(default=UNSET, name=ANCHOR)
    )
    expires_after_seconds: Annotated[
        Annotated[int, Meta(ge=MIN_EXPIRY_SECONDS, le=MAX_EXPIRY_SECONDS)] | UnsetType,
        Meta(description="Without: a file of a batch expires after files.batch_expiry_seconds, another never."),
    ] = field(default=UNSET, name=SECONDS)


@dataclass(frozen=True, slots=True)
class FileForm:
    """The fields of an upload that are no file."""

    purpose: str
    expires_after_seconds: int | None


def file_form(fields: Mapping[str, str]) -> FileForm:
    """Checks the fields. Raises MissingParameter, InvalidType, InvalidValue, each with the field's name."""
    purpose = fields.get("purpose")
    if not purpose:
        raise MissingParameter("purpose")
    if purpose not in PURPOSES:
        raise InvalidValue(f"Invalid value for 'purpose': choose from {', '.join(PURPOSES)}.", param="purpose")
    return FileForm(purpose, _expiry(fields))


def _expiry(fields: Mapping[str, str]) -> int | None:
    if not_ours := [name for name in fields if name.startswith("expires_after") and name not in {ANCHOR, SECONDS}]:
        raise InvalidType(
            f"Invalid type for '{not_ours[0][:64]}': send the two parts '{ANCHOR}' and '{SECONDS}'.", param="expires_after"
        )
    anchor, seconds = fields.get(ANCHOR), fields.get(SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor is None or seconds is None:
        raise MissingParameter(ANCHOR if anchor is None else SECONDS)
    if anchor != "created_at":
        raise InvalidValue(f"Invalid value for '{ANCHOR}': expected 'created_at'.", param=ANCHOR)
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= len(str(MAX_EXPIRY_SECONDS))):
        raise InvalidType(f"Invalid type for '{SECONDS}': expected an integer.", param=SECONDS)
    if not MIN_EXPIRY_SECONDS <= int(seconds) <= MAX_EXPIRY_SECONDS:
        raise InvalidValue(
            f"Invalid value for '{SECONDS}': expected an integer from {MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}.", param=SECONDS
        )
    return int(seconds)


def plain_filename(sent: str) -> str:
    """The name without folders and without characters that could mislead a terminal, a header or a database."""
    name = UNSAFE.sub("", re.split(r"[/\\]", sent)[-1]).strip()
    return name[:MAX_FILENAME_CHARS] or UNNAMED
