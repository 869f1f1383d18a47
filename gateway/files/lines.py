"""Chunks to lines, with bounded memory."""

from collections.abc import AsyncGenerator, AsyncIterator


async def split_lines(chunks: AsyncIterator[bytes], *, max_line_bytes: int | None = None) -> AsyncGenerator[bytes]:
    """Yields the lines with their ends (LF), so that their lengths add up to offsets.

    Of a line of more than `max_line_bytes`, its end not counted, only the first `max_line_bytes` + 1 come, without an end: so the
    consumer sees that it is too long.
    """
    rest = bytearray()
    async for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for piece in whole:
            line = bytes(rest) + piece if rest else piece
            rest.clear()
            yield line + b"\n" if max_line_bytes is None or len(line) <= max_line_bytes else line[: max_line_bytes + 1]
        rest += last
        if max_line_bytes is not None:
            del rest[max_line_bytes + 1 :]
    if rest:
        yield bytes(rest)
