"""Chunks to lines."""

import pytest

from gateway.files.lines import split_lines


async def chunks(*pieces: bytes):
    for piece in pieces:
        yield piece


async def lines(*pieces: bytes, most: int | None = None) -> list[bytes]:
    return [line async for line in split_lines(chunks(*pieces), max_line_bytes=most)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_lines_do_not_depend_on_the_chunks(size):
    text = b"one\n\ntwo\r\nthree\n\nlast"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert await lines(*pieces) == [b"one\n", b"\n", b"two\r\n", b"three\n", b"\n", b"last"]


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_line_too_long_is_cut_and_the_next_one_is_whole(size):
    text = b"abcdefgh\nabcde\nabc\n" + b"x" * 30
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert await lines(*pieces, most=5) == [b"abcdef", b"abcde\n", b"abc\n", b"xxxxxx"]


async def test_nothing_has_no_lines():
    assert await lines() == []
