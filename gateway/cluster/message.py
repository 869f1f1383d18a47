"""The messages between a gateway, its Ray client and the replicas, and their framing by length prefixes.

A frame is two little-endian uint32, the numbers of bytes of its header and of its payload, then both. The header is msgpack. The
payload is the raw memory of an array: int32 of packed windows, or float32 of rows.
"""

import asyncio
import struct

import msgspec
from msgspec import Struct

from gateway.embedding.embedder import Description, ServiceClass, StageSeconds
from gateway.engine.encoder import NetworkInfo
from gateway.engine.settings import LocalSettings

PREFIX = struct.Struct("<II")
MAX_HEADER_BYTES = 64 << 20  # the ReplicaInfo of a multilingual model contains a tokenizer of 17 MB
MAX_PAYLOAD_BYTES = 1 << 30


class Message(Struct, frozen=True, kw_only=True, tag=True):
    """The base of all headers."""


class EmbedCall(Message, frozen=True, kw_only=True):
    """Embed the windows of the payload, for vectors of `fingerprint` and no others, within `seconds`. `field` is that of Inputs."""

    number: int
    seconds: float
    caller: str
    normalize: bool
    fingerprint: str
    weight: float = 1.0
    service_class: ServiceClass = "interactive"
    field: str = "input"


class CancelCall(Message, frozen=True, kw_only=True):
    """Cancels call `number`: its caller has left."""

    number: int


class EmbedResult(Message, frozen=True, kw_only=True):
    """The answer to call `number`: the payload is rows of `dimensions` float32. `backlog_seconds` is the replica's queue.

    `row_counts` are those of Vectors; each row is then `Description.row_width` wide.
    """

    number: int
    dimensions: int
    stages: StageSeconds
    backlog_seconds: float
    row_counts: list[int] | None = None


class EmbedRefusal(Message, frozen=True, kw_only=True):
    """Call `number` gets no vectors. `code` is one of gateway/errors/, "lost", "other_vectors" or "failed"."""

    number: int
    code: str
    retry_after_seconds: float = 1.0
    where: str = ""
    reason: str = ""


class ClusterStatus(Message, frozen=True, kw_only=True):
    """The cluster as the Ray client sees it: whether it takes calls, why not, and how many replicas are in each state."""

    is_up: bool
    detail: str = ""
    replicas: dict[str, int] = {}
    fingerprint: str | None = None  # of a replica, fetched just now


class ReplicaInfo(Message, frozen=True, kw_only=True):
    """A replica's description. With it the gateway tokenises and cuts exactly as the replica would, without the model's files."""

    description: Description
    settings: LocalSettings
    network: NetworkInfo
    tokenizer_json: str


class Shutdown(Message, frozen=True, kw_only=True):
    """The Ray client ends, with its reason."""

    reason: str


ClientCommand = EmbedCall | CancelCall
ClientEvent = EmbedResult | EmbedRefusal | ClusterStatus | ReplicaInfo | Shutdown
encode = msgspec.msgpack.Encoder().encode
to_client = msgspec.msgpack.Decoder(ClientCommand)
from_client = msgspec.msgpack.Decoder(ClientEvent)


def write(writer: asyncio.StreamWriter, header: bytes, payload: bytes | memoryview = b"") -> None:
    """Queues one frame; `writer.drain` waits until queued frames are sent."""
    writer.write(PREFIX.pack(len(header), len(payload)) + header)
    if payload:
        writer.write(payload)


async def read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next header and payload. Raises asyncio.IncompleteReadError at the end of the stream, ValueError if one is too large."""
    header_bytes, payload_bytes = PREFIX.unpack(await reader.readexactly(PREFIX.size))
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ValueError("a frame is larger than any message can be")
    return await reader.readexactly(header_bytes), await reader.readexactly(payload_bytes)
