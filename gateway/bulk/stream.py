"""A seekable stream of a file's text as UTF-8, for any compression and encoding.

The file's first bytes decide its type, not its name. A plain file is seekable. In any other file a seek reads again from the start,
which costs little compared with embedding. Either way memory does not grow with the file.
"""

import codecs
import gzip
import zlib
from pathlib import Path
from typing import Any

from gateway.bulk.encoding import UTF8, Readable, Transcoder, checked_encoding, encoding_of, looks_like
from gateway.bulk.row import shown
from gateway.errors import OperatorError

HEAD_BYTES = 4096
SKIPPED_BYTES = 1024 * 1024  # per read, while a seek skips
GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte from 0x50 to 0x5f
OTHERS = {
    **{b"BZh%d1AY&SY" % level: "compressed by bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\0": "compressed by xz", b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PK\x03\x04": "a zip archive, as Excel's workbooks are", b"\xd0\xcf\x11\xe0": "a workbook of Excel",
    b"SQLite format 3\0": "a SQLite database", b"ARROW1\0\0": "an Arrow file",
}  # fmt: skip
TAR, TAR_AT = b"ustar", 257


class TextStream:
    """A ByteSource. `first` is where the text begins, after a byte order mark. `encoding` is the file's, before transcoding."""

    def __init__(self, path: Path, encoding: str | None = None, *, max_bytes: int | None = None) -> None:
        """`max_bytes` bounds the text, unpacked. Raises OSError, and OperatorError for a file that is not text."""
        self.path = path
        self.max_bytes = max_bytes
        self.raw = path.open("rb")
        self.num_bytes = path.stat().st_size
        self.position = self.raw_position = 0
        self.encoding = UTF8
        try:
            self.compression = _compression_of(self.raw.read(HEAD_BYTES))
            head = self.head()
            _refuse_other(path, head)
            self.encoding = checked_encoding(encoding) if encoding else encoding_of(head)
            if encoding is None and self.encoding == UTF8:
                _refuse_unmarked(path, head)
            self.is_plain = not self.compression and self.encoding == UTF8
            self.reader: Readable = self.raw
            self.restart()
            self.first = _length_of_marks(self.read(HEAD_BYTES))
        except BaseException:
            self.raw.close()
            raise

    def head(self) -> bytes:
        """Returns the first HEAD_BYTES, decompressed."""
        self.raw.seek(0)
        self.reader, self.position = decompressed(self.raw, self.compression), 0
        found = b""
        while len(found) < HEAD_BYTES and (chunk := self.read(HEAD_BYTES)):
            found += chunk
        return found

    def restart(self) -> None:
        self.raw.seek(0)
        self.position = 0
        self.reader = decompressed(self.raw, self.compression)
        if self.encoding != UTF8:
            self.reader = Transcoder(self.reader, self.encoding)

    def seek(self, offset: int, /) -> None:
        if self.is_plain:
            self.position = self.raw.seek(offset)
            return
        if offset < self.position:
            self.restart()
        while self.position < offset and self.read(min(SKIPPED_BYTES, offset - self.position)):
            continue

    def read(self, num_bytes: int, /) -> bytes:
        """Returns at most `num_bytes` bytes, none at the end. Raises OSError, and OperatorError for damaged data."""
        try:
            content = self.reader.read(num_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.damaged(error) from None
        except UnicodeError:
            raise OperatorError(f"{shown(self.path)} cannot be read as {self.encoding}") from None
        except OSError as error:
            if error.errno is None:  # the decompressor's error, not the disk's
                raise self.damaged(error) from None
            raise
        self.position += len(content)
        self.raw_position = self.raw.tell()
        if self.max_bytes is not None and self.position > self.max_bytes:
            raise OperatorError(f"{shown(self.path)} has more than {self.max_bytes:,} bytes of text")
        return content

    def damaged(self, error: Exception) -> OperatorError:
        is_cut = isinstance(error, EOFError) or "Truncated" in str(error)
        what = "ends before its compressed data do: it was cut off" if is_cut else "is damaged: its compressed data are wrong"
        return OperatorError(f"{shown(self.path)} {what}, {self.position:,} bytes of text after its beginning")

    def share(self, offset: int) -> float:
        """Returns the part of the file before `offset`, from 0 to 1; for a compressed or transcoded file, the part read so far."""
        position = offset if self.is_plain else self.raw_position
        return min(position / self.num_bytes, 1.0) if self.num_bytes else 1.0

    def close(self) -> None:
        self.raw.close()


class _LentFile:
    """A file that its reader cannot close: Arrow's streams close theirs when they are garbage-collected."""

    closed = False

    def __init__(self, file: Readable) -> None:
        self.read = file.read

    def close(self) -> None:
        """The file stays open."""


def _length_of_marks(head: bytes) -> int:
    """Returns the length of all byte order marks at the start: some programs write a second one before the file's own."""
    first = 0
    while head.startswith(codecs.BOM_UTF8, first):
        first += len(codecs.BOM_UTF8)
    return first


def _refuse_unmarked(path: Path, head: bytes) -> None:
    """Raises OperatorError for UTF-16 without a byte order mark: read as UTF-8 its texts would be full of zeros."""
    if likely := looks_like(head):
        raise OperatorError(f"{shown(path)} is not UTF-8 but looks like {likely}: --encoding {likely} reads it")


def _compression_of(head: bytes) -> str:
    """Returns "gzip", "zstd", or "" for none."""
    if head.startswith(GZIP):
        return "gzip"
    is_zstd = head.startswith(ZSTD) or (head[1:4] == ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F)  # noqa: PLR2004 - RFC 8878, 3.1.2
    return "zstd" if is_zstd else ""


def is_packed(head: bytes) -> bool:
    """Whether a file that begins so is compressed by gzip or zstd."""
    return bool(_compression_of(head))


def decompressed(raw: Any, compression: str) -> Any:
    """Returns a reader of the decompressed bytes. Raises OperatorError if pyarrow, needed for zstd, is not installed."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if compression == "zstd":
        try:
            import pyarrow  # noqa: PLC0415 - an extra
        except ImportError:
            raise OperatorError("zstd needs the package pyarrow: pip install pyarrow") from None
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(_LentFile(raw), mode="r"), "zstd")
    return raw


def _refuse_other(path: Path, head: bytes) -> None:
    """Raises OperatorError for a file of a known binary format."""
    found = next((what for sign, what in OTHERS.items() if head.startswith(sign)), None)
    if head[TAR_AT:].startswith(TAR):
        found = "a tar archive"
    if found is not None:
        raise OperatorError(f"{shown(path)} is {found}, and no text")
    if head.startswith(b"PAR1\x15"):
        raise OperatorError(f"{shown(path)} is Parquet, and no text: --format parquet")
