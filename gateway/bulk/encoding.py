"""Encodings: detection, and transcoding to UTF-8. Bytes that cannot be decoded become bytes that are invalid UTF-8."""

import codecs
import io
from typing import Protocol

from gateway.bulk.row import MARK
from gateway.errors import OperatorError

UTF8 = "utf-8"
MARKS = (  # UTF-32 first: its mark begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
CHUNK_BYTES = 64 * 1024
GUESSED_BYTES = 32  # enough to tell UTF-16 without a mark from UTF-8: its Latin letters and commas alternate with zeros
MIN_GUESSED_BYTES = 8
MARKED = "gateway.bulk.marked"  # the name of the error handler below


def marked(error: UnicodeError) -> tuple[str | bytes, int]:
    """A codecs error handler that marks what cannot be decoded, so that it is neither lost nor guessed."""
    if isinstance(error, UnicodeDecodeError):
        return MARK, error.end
    if isinstance(error, UnicodeEncodeError):
        return MARK.encode(errors="surrogateescape"), error.end
    raise error


codecs.register_error(MARKED, marked)


def checked_encoding(name: str) -> str:
    """Returns Python's own name of an encoding. Raises OperatorError if it is unknown, or not a text encoding."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise OperatorError(
            f"--encoding: {name!r} is no encoding of texts; known are utf-8, utf-16, cp1252, latin-1 and others"
        ) from None


def encoding_of(head: bytes) -> str:
    """Returns the encoding of the byte order mark, or UTF-8 if there is none."""
    return next((name for mark, name in MARKS if head.startswith(mark)), UTF8)


def looks_like(head: bytes) -> str | None:
    """Returns "utf-16-le" or "utf-16-be" if the zeros in a text without a mark show it, else None."""
    head = head[:GUESSED_BYTES]
    if len(head) < MIN_GUESSED_BYTES:
        return None
    zeros = [sum(not byte for byte in head[start::2]) / len(head[start::2]) for start in (0, 1)]
    for name, (none, every) in {"utf-16-le": (0, 1), "utf-16-be": (1, 0)}.items():
        if zeros[none] == 0 and zeros[every] > 0.9:  # noqa: PLR2004 - not 1: a letter of another script may be among them
            return name
    return None


class Readable(Protocol):
    def read(self, num_bytes: int, /) -> bytes: ...


class Transcoder:
    """Reads a text in any encoding as UTF-8, forward only."""

    def __init__(self, source: Readable, encoding: str) -> None:
        self.source = source
        self.decoder = codecs.getincrementaldecoder(encoding)(errors=MARKED)
        self.ready = b""
        self.is_at_end = False

    def read(self, num_bytes: int, /) -> bytes:
        """Returns at most `num_bytes` bytes, none at the end. Raises UnicodeError if the codec fails despite the error handler."""
        while not self.ready and not self.is_at_end:
            chunk = self.source.read(CHUNK_BYTES)
            self.is_at_end = not chunk
            self.ready = self.decoder.decode(chunk, final=self.is_at_end).encode(errors=MARKED)
        found, self.ready = self.ready[:num_bytes], self.ready[num_bytes:]
        return found
