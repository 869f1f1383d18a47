"""Reads text files that an operator wrote with any editor: skips a byte order mark, and refuses other encodings than UTF-8."""

from pathlib import Path

WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
HEAD_BYTES = 4


class NotUTF8(ValueError):
    """A file that is not UTF-8. The message names its encoding if that can be seen."""


def read_text(path: Path) -> str:
    """The file's text without a byte order mark, with its line ends unchanged. Raises OSError and NotUTF8."""
    raw = path.read_bytes()
    if raw.startswith(WIDE_MARKS) or b"\0" in raw[:HEAD_BYTES]:
        raise NotUTF8("it is UTF-16 text: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotUTF8(f"it is not UTF-8 text, at byte {error.start}") from None


def reason_of(error: OSError | NotUTF8) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
