"""An upload: multipart/form-data, parsed as it arrives, its file written as it is parsed. Never is more than a chunk in memory."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import TypeAlias
from urllib.parse import unquote

from litestar.types import Receive, Scope
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from gateway.api.body import encoding_of
from gateway.config import FileSettings
from gateway.errors import (
    ClientGone,
    FileTooLarge,
    InvalidType,
    InvalidValue,
    MissingParameter,
    SlowRequest,
    UnsupportedEncoding,
)
from gateway.files.writer import FileWriter
from gateway.server.headers import value_of
from gateway.wire.files import plain_filename

EXTENDED_FILENAME = re.compile(r"; *filename\* *= *utf-8'[^']*'([^\s;\"]+)", re.IGNORECASE)
FORM = "multipart/form-data"
FED_BYTES = 256 * 1024  # parsed at once, between two turns of the event loop
MAX_PARTS = 32
MAX_BOUNDARY_CHARS = 256  # RFC 2046 allows 70; one that is cut here matches nothing
MAX_FIELD_BYTES = 4 * 1024
FORM_BYTES = MAX_PARTS * 3 * MAX_FIELD_BYTES  # what an upload may have besides its file

Event: TypeAlias = MultipartSegment | bytes | bytearray | None  # a part begins, some of its content, it ends


class Upload:
    """One upload. `read` fills `fields` and `filename`."""

    def __init__(self, scope: Scope, receive: Receive, settings: FileSettings) -> None:
        """Raises InvalidType if the body is no form, FileTooLarge if it is said to be too large, UnsupportedEncoding."""
        self.receive = receive
        self.settings = settings
        if encoding_of(scope):
            raise UnsupportedEncoding(is_gzip_read=False)
        headers = [*scope["headers"]]
        declared = (value_of(headers, b"content-length") or b"").decode("latin-1")
        self.num_declared_bytes = int(declared) if declared.isdecimal() else 0
        if self.num_declared_bytes > settings.max_file_bytes + FORM_BYTES:
            raise FileTooLarge(settings.max_file_bytes)
        self.parser = _parser_of((value_of(headers, b"content-type") or b"").decode("latin-1"))
        self.fields: dict[str, str] = {}
        self.filename: str | None = None

    @property
    def num_reserved_bytes(self) -> int:
        """What the file has at least, by the length that the client declared."""
        return max(0, self.num_declared_bytes - FORM_BYTES)

    async def read(self, writer: FileWriter) -> None:
        """Reads the whole body; the file goes to `writer`.

        Raises SlowRequest, ClientGone, FileTooLarge, InvalidType, InvalidValue, MissingParameter, and what `FileWriter.write` does.
        """
        try:
            async with asyncio.timeout(self.settings.upload_timeout_seconds):
                await self.read_parts(writer)
        except TimeoutError:
            raise SlowRequest(self.settings.upload_timeout_seconds) from None
        if self.filename is None:
            raise MissingParameter("file")
        if not writer.num_bytes:
            raise InvalidValue("Invalid 'file': it is empty.", param="file")

    async def read_parts(self, writer: FileWriter) -> None:
        name, field = "", bytearray()
        async for event in self.events():
            if isinstance(event, MultipartSegment):
                name, field = self.begin(event), bytearray()
            elif event is None:
                self.end(name, field)
            elif name == "file":
                await writer.write(bytes(event))
            else:
                field += event
                if len(field) > MAX_FIELD_BYTES:
                    raise InvalidValue(f"Invalid '{name[:64]}': at most {MAX_FIELD_BYTES} bytes are accepted.", param=name[:64])

    def begin(self, part: MultipartSegment) -> str:
        """Returns the part's name."""
        name = part.name or ""
        if name == "file":
            if (filename := _filename_of(part)) is None:
                raise InvalidType("Invalid type for 'file': expected a file, a part with a filename.", param="file")
            if self.filename is not None:
                raise InvalidValue("Invalid 'file': send one file a request.", param="file")
            self.filename = plain_filename(filename)
        return name

    def end(self, name: str, content: bytearray) -> None:
        if name != "file":
            self.fields[name] = content.decode("utf-8", "replace")

    async def events(self) -> AsyncIterator[Event]:
        """Yields what the parser finds. Raises InvalidValue if the body is no valid form."""
        async for chunk in self.chunks():
            for event in _parse(self.parser, chunk):
                yield event
        for _ in _parse(self.parser, b""):  # the end
            pass

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body in pieces of FED_BYTES at most."""
        num_bytes, is_more = 0, True
        while is_more:
            try:
                async with asyncio.timeout(self.settings.upload_idle_seconds):
                    message = await self.receive()
            except TimeoutError:
                raise SlowRequest(self.settings.upload_idle_seconds, part="next bytes") from None
            if message["type"] != "http.request":
                raise ClientGone
            body, is_more = message["body"], message["more_body"]
            num_bytes += len(body)
            if num_bytes > self.settings.max_file_bytes + FORM_BYTES:
                raise FileTooLarge(self.settings.max_file_bytes)
            for start in range(0, len(body), FED_BYTES):
                yield body[start : start + FED_BYTES] if len(body) > FED_BYTES else body


def _parser_of(content_type: str) -> PushMultipartParser:
    kind, options = parse_options_header(content_type)
    try:
        if kind != FORM:
            raise InvalidType(f"The body must be {FORM}, with the parts 'file' and 'purpose'.")
        return PushMultipartParser(options.get("boundary", "")[:MAX_BOUNDARY_CHARS], max_segment_count=MAX_PARTS)
    except MultipartError as error:
        raise _invalid_form(error) from None


def _parse(parser: PushMultipartParser, chunk: bytes) -> Iterator[Event]:
    try:
        yield from parser.parse(chunk)
    except MultipartError as error:
        raise _invalid_form(error) from None


def _filename_of(part: MultipartSegment) -> str | None:
    """RFC 7578 forbids `filename*=UTF-8''…`, the form of RFC 5987; clients send it, those of urllib3 1 nothing else."""
    disposition = next((value for name, value in part.headerlist if name.lower() == "content-disposition"), "")
    extended = EXTENDED_FILENAME.search(disposition)
    return unquote(extended[1]) if extended else part.filename


def _invalid_form(error: MultipartError) -> InvalidValue:
    is_too_much = isinstance(error, ParserLimitReached)
    reason = (
        "it has too many parts, or a part's headers are too long"
        if is_too_much
        else "its boundaries or headers are wrong, or it is cut short"
    )
    return InvalidValue(f"Your request is not valid {FORM}: {reason}.")
