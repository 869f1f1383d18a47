"""What a gateway and its Ray client say to each other, what a replica is asked and answers, and how a frame is told from the next.

A frame is two little-endian uint32, the bytes of its header and of its payload, then both. The header is msgpack; the payload is an
array's own memory: int32 of a parcel, float32 of rows.
"""

import asyncio
import struct

import msgspec
from msgspec import Struct

from gateway.embedding.embedder import Description, ServiceClass, StageSeconds
from gateway.engine.encoder import NetworkInfo
from gateway.engine.settings import LocalSettings

PREFIX = struct.Struct("<II")
MAX_HEADER_BYTES = 64 << 20  # the card of a multilingual model holds a tokenizer of 17 MB
MAX_PAYLOAD_BYTES = 1 << 30


class Message(Struct, frozen=True, kw_only=True, tag=True):
    """Anything that may be a header."""


class EmbedCall(Message, frozen=True, kw_only=True):
    """Embed the windows of the payload, for vectors of `fingerprint` and no others, within `seconds`."""

    number: int
    seconds: float
    caller: str
    normalize: bool
    fingerprint: str
    weight: float = 1.0
    service_class: ServiceClass = "interactive"


class CancelCall(Message, frozen=True, kw_only=True):
    """Nobody waits for call `number` any more."""

    number: int


class EmbedResult(Message, frozen=True, kw_only=True):
    """Call `number`: the payload holds rows of `dimensions` float32. `backlog_seconds` is what waits in the replica."""

    number: int
    dimensions: int
    stages: StageSeconds
    backlog_seconds: float


class EmbedRefusal(Message, frozen=True, kw_only=True):
    """Call `number` has no vectors. `code` is one of gateway/errors/, "lost", "other_vectors" or "failed"."""

    number: int
    code: str
    retry_after_seconds: float = 1.0
    where: str = ""
    reason: str = ""


class ClusterStatus(Message, frozen=True, kw_only=True):
    """The cluster as the Ray client sees it: whether calls make sense, why not, and how many replicas are in which state."""

    is_up: bool
    detail: str = ""
    replicas: dict[str, int] = {}
    fingerprint: str | None = None  # of a replica that was asked just now


class ReplicaInfo(Message, frozen=True, kw_only=True):
    """What a replica is. With it the gateway tokenises and cuts exactly as the replica would, and needs no file of the model."""

    description: Description
    settings: LocalSettings
    network: NetworkInfo
    tokenizer_json: str


class Shutdown(Message, frozen=True, kw_only=True):
    """The Ray client ends, and why."""

    reason: str


ToCourier = EmbedCall | CancelCall
FromCourier = EmbedResult | EmbedRefusal | ClusterStatus | ReplicaInfo | Shutdown
encode = msgspec.msgpack.Encoder().encode
to_client = msgspec.msgpack.Decoder(ToCourier)
from_client = msgspec.msgpack.Decoder(FromCourier)


def write(writer: asyncio.StreamWriter, header: bytes, payload: bytes | memoryview = b"") -> None:
    """Queues one frame. What is queued leaves when the writer is drained."""
    writer.write(PREFIX.pack(len(header), len(payload)) + header)
    if payload:
        writer.write(payload)


async def read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next header and payload. Raises asyncio.IncompleteReadError at the end, ValueError for what is no frame."""
    header_bytes, payload_bytes = PREFIX.unpack(await reader.readexactly(PREFIX.size))
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ValueError("a frame is larger than any message can be")
    return await reader.readexactly(header_bytes), await reader.readexactly(payload_bytes)
