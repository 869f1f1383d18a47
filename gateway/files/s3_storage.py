"""A storage in a bucket of Amazon S3 or of a server that speaks its protocol, through obstore (the extra `s3`).

A content is one object. Large ones are multipart uploads, and appear whole when these are completed. The library runs on threads of
its own and never blocks the event loop.
"""

from collections.abc import AsyncGenerator, Awaitable
from datetime import timedelta
from types import ModuleType
from typing import Any, TypeVar

from gateway.config import FileSettings, secret_value
from gateway.errors import ConfigurationError, OperatorError, StorageUnavailable
from gateway.files.storage import CHUNK_BYTES
from gateway.files.stored_file import random_name
from gateway.log import get_logger
from gateway.metrics.files import FileMetrics

PART_BYTES = 8 * 1024 * 1024  # of a multipart upload: 10,000 of them at most, so a content has 80 GB at most
NUM_PARTS_AT_ONCE = 2
READ_BYTES = 4 * 1024 * 1024  # asked for at once: a consumer may be slow between two requests
CONNECT_SECONDS, ANSWER_SECONDS, RETRY_SECONDS, MAX_RETRIES = 5, 60, 30, 3
MAX_REASON_CHARS = 500

Result = TypeVar("Result")

log = get_logger()


class S3Storage:
    """A `BlobStorage`. `secrets` never appear in the log."""

    def __init__(self, library: ModuleType, bucket: Any, metrics: FileMetrics, *, secrets: tuple[str, ...]) -> None:
        self.library = library
        self.bucket = bucket
        self.metrics = metrics
        self.secrets = secrets
        errors = library.exceptions
        self.refusals = (PermissionError, FileNotFoundError, errors.PermissionDeniedError, errors.UnauthenticatedError)

    async def start(self) -> None:
        """Writes and deletes an object. Raises OperatorError if the bucket refuses; one that cannot be reached may come later."""
        name = f"probe-{random_name()}"
        try:
            await self.library.put_async(self.bucket, name, b"probe")
            await self.library.delete_async(self.bucket, name)
        except self.refusals as error:
            raise OperatorError(f"files.s3_bucket: the bucket refuses to be written: {self.reason_of(error)}") from None
        except (self.library.exceptions.BaseError, OSError) as error:
            log.warning("file_storage_unreachable", reason=self.reason_of(error), hint="it is tried again by each request")

    async def create(self, name: str) -> "S3Writer":
        return S3Writer(self, name)

    async def read(self, name: str, *, start: int, stop: int) -> AsyncGenerator[bytes]:
        while start < stop:
            wanted = min(READ_BYTES, stop - start)
            piece = memoryview(await self.run(self.library.get_range_async(self.bucket, name, start=start, length=wanted)))
            if len(piece) != wanted:
                self.fail("the content is shorter than it was written")
            start += wanted
            for at in range(0, wanted, CHUNK_BYTES):
                yield bytes(piece[at : at + CHUNK_BYTES])

    def path_of(self, name: str) -> None:
        """It is on no machine of ours."""

    async def delete(self, name: str) -> None:
        await self.run(self.library.delete_async(self.bucket, name))

    async def close(self) -> None:
        """Does nothing: the library closes idle connections by itself."""

    async def run(self, work: Awaitable[Result]) -> Result:
        """Raises StorageUnavailable if the library fails; the log says why."""
        try:
            return await work
        except (self.library.exceptions.BaseError, OSError) as error:
            self.fail(self.reason_of(error))
            raise StorageUnavailable from None

    def fail(self, reason: str) -> None:
        """Counts and logs a failure. Raises StorageUnavailable."""
        self.metrics.failures.labels("content").inc()
        log.warning("file_storage_failed", reason=reason)
        raise StorageUnavailable from None

    def reason_of(self, error: Exception) -> str:
        """The first lines of the library's message, in one line: they have the server's answer, which may quote a key's id."""
        text = " ".join(str(error).partition("\n\nDebug source:")[0].split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text[:MAX_REASON_CHARS]


class S3Writer:
    """A `BlobWriter`. Up to PART_BYTES are in memory, and NUM_PARTS_AT_ONCE parts on their way."""

    def __init__(self, storage: S3Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.writer = storage.library.open_writer_async(
            storage.bucket, name, buffer_size=PART_BYTES, max_concurrency=NUM_PARTS_AT_ONCE
        )

    async def write(self, chunk: bytes) -> None:
        await self.storage.run(self.writer.write(chunk))

    async def commit(self) -> None:
        await self.storage.run(self.writer.close())

    async def discard(self) -> None:
        """Aborts the multipart upload, and deletes the object if it was complete already."""
        if not await self.storage.run(self.writer.closed()):
            await self.storage.run(self.writer.__aexit__(StorageUnavailable, StorageUnavailable(), None))
        await self.storage.delete(self.name)


def build_s3_storage(settings: FileSettings, metrics: FileMetrics) -> S3Storage:
    """Raises ConfigurationError if the library is missing, or a setting is wrong."""
    try:
        import obstore  # noqa: PLC0415 - an extra
        from obstore.store import S3Store  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("files.s3_bucket: S3 needs its library: pip install 'embeddings-gateway[s3]'") from None
    secrets = {
        name: secret_value(secret)
        for name, secret in {
            "access_key_id": settings.s3_access_key_id,
            "secret_access_key": settings.s3_secret_access_key,
            "session_token": settings.s3_session_token,
        }.items()
        if secret is not None
    }
    given = {"endpoint": settings.s3_endpoint, "region": settings.s3_region, **secrets}
    config: Any = {name: value for name, value in given.items() if value is not None}
    try:
        bucket = S3Store(
            settings.s3_bucket,
            prefix=settings.s3_prefix or None,
            config=config,
            client_options={
                "allow_http": (settings.s3_endpoint or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": timedelta(seconds=ANSWER_SECONDS),
            },
            retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )
    except obstore.exceptions.BaseError:
        raise ConfigurationError("files.s3_bucket: the settings of S3 are not valid together") from None
    return S3Storage(obstore, bucket, metrics, secrets=tuple(secrets.values()))
