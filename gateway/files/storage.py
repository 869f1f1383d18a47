"""The interface of a storage: contents by name, written once and never changed. A name is in use from `create` until `delete`."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 256 * 1024  # of what `read` yields


class BlobWriter(Protocol):
    """One content that is being written. Every method raises StorageUnavailable if the storage fails or is full."""

    async def write(self, chunk: bytes) -> None:
        """Takes more of the content. Returns once there is room in memory for as much again."""

    async def commit(self) -> None:
        """Makes the content durable under its name. Nobody sees a part of it before."""

    async def discard(self) -> None:
        """Leaves nothing behind, as far as the storage can be reached. May be called at any time, also after a failure."""


class BlobStorage(Protocol):
    """`FolderStorage` or `S3Storage`. Used on the event loop, which it never blocks."""

    async def start(self) -> None:
        """Raises OperatorError if the storage cannot be used at all."""

    async def create(self, name: str) -> BlobWriter:
        """Raises StorageUnavailable."""

    def read(self, name: str, *, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Yields bytes `start` to `stop`, in chunks of CHUNK_BYTES at most; the consumer may be slow, or end early.

        Raises StorageUnavailable, also if there is no such content, or it is shorter.
        """

    def path_of(self, name: str) -> Path | None:
        """Where the content is, if it is a file on this machine: not to be changed."""

    async def delete(self, name: str) -> None:
        """Deletes a content, and what a broken-off write left of it. Does nothing if there is none. Raises StorageUnavailable."""

    async def close(self) -> None: ...
