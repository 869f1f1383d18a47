"""Frames on a stream: two little-endian uint32, the numbers of bytes of the header and of the payload, then both.

The header is a message in msgpack. The payload is the raw memory of an array: int32 of packed windows, or float32 of rows.
"""

import asyncio
import struct

PREFIX = struct.Struct("<II")
MAX_HEADER_BYTES = 64 << 20  # the ReplicaInfo of a multilingual model contains a tokenizer of 17 MB
MAX_PAYLOAD_BYTES = 1 << 30


class FrameTooLarge(ValueError):
    """A frame that no message can be: the stream is not of this protocol."""

    def __init__(self) -> None:
        super().__init__("a frame is larger than any message can be")


def write(writer: asyncio.StreamWriter, header: bytes, payload: bytes | memoryview = b"") -> None:
    """Queues one frame; `writer.drain` waits until queued frames are sent."""
    writer.write(PREFIX.pack(len(header), len(payload)) + header)
    if payload:
        writer.write(payload)


async def read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next header and payload. Raises asyncio.IncompleteReadError at the end of the stream, FrameTooLarge."""
    header_bytes, payload_bytes = sizes(await reader.readexactly(PREFIX.size))
    return await reader.readexactly(header_bytes), await reader.readexactly(payload_bytes)


def sizes(data: bytes, start: int = 0) -> tuple[int, int]:
    """The bytes of the header and payload of the frame that begins at `start`. Raises FrameTooLarge."""
    header_bytes, payload_bytes = PREFIX.unpack_from(data, start)
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise FrameTooLarge
    return header_bytes, payload_bytes
