"""The files of a batch's replies: parts of one slice each while it runs, joined to one output and one error file at its end.

Parts belong to the batch, not to the key, so nobody lists them; what a killed gateway leaves expires. The ids of the joined files
follow from the batch's: whoever joins them a second time finds them there.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.batches.job import BatchJob, Ending, ShardFiles
from gateway.batches.slice import slices
from gateway.errors import UnknownFile
from gateway.files.store import FileStore
from gateway.files.stored_file import StoredFile
from gateway.wire import batch_lines

PURPOSE, PART_PURPOSE = "batch_output", "batch_part"
PART_SECONDS = 3 * 24 * 3600.0  # beyond the window of the batch
# What becomes of requests that were never made, by how the batch ended.
UNANSWERED: dict[Ending, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
    "failed": ("batch_failed", "This request was not executed: the batch failed."),
}


@dataclass(slots=True)
class JoinedFiles:
    """The ids of the two files; None if there are no such replies. `num_unanswered` requests were never made."""

    output: str | None = None
    error: str | None = None
    num_unanswered: int = 0


class OutputFiles:
    """Every method raises StorageUnavailable."""

    def __init__(self, job: BatchJob, files: FileStore) -> None:
        self.job = job
        self.files = files

    async def write_part(self, lines: bytes) -> str:
        """Stores the lines. Returns the file's id."""
        async with await self.files.create(self.job.id, is_charged=False) as writer:
            await writer.write(lines)
            part = await writer.commit(purpose=PART_PURPOSE, filename=self.job.id, expires_after_seconds=self.part_seconds)
        return part.id

    async def write_lines(self, chunks: AsyncIterator[bytes], *, check: Callable[[], None]) -> StoredFile:
        """Stores the requests of an input that was converted, once, however often it is."""
        async with await self.files.create(self.job.id, is_charged=False) as writer:
            async for chunk in chunks:
                check()
                await writer.write(chunk)
            return await writer.commit(
                purpose=PART_PURPOSE, filename=self.job.id, expires_after_seconds=self.part_seconds, file_id=self.lines_id
            )

    @property
    def lines_id(self) -> str:
        return file_id(self.job.id, "lines")

    @property
    def part_seconds(self) -> float:
        return self.job.expires_at - self.job.created_at + PART_SECONDS

    async def assemble(self, shards: list[ShardFiles], ending: Ending, *, check: Callable[[], None]) -> JoinedFiles:
        """Joins the parts, and lists the requests that were never made as errors. `check` is called now and then, and may raise."""
        made = JoinedFiles()
        rest = self.unanswered(ending, made)
        outputs = self.contents([shard.output for shard in shards])
        errors = self.contents([shard.error for shard in shards], rest)
        made.output = await self.join("output", outputs, check)
        made.error = await self.join("error", errors, check)
        return made

    async def contents(self, parts: list[str | None], rest: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
        for part in parts:
            if part is not None:
                async for chunk in self.files.read(await self.files.get(self.job.id, part)):
                    yield chunk
        if rest is not None:
            async for chunk in rest:
                yield chunk

    async def unanswered(self, ending: Ending, made: JoinedFiles) -> AsyncIterator[bytes]:
        """Yields lines for the requests behind the last slice, if the file was validated, and counts them."""
        job = self.job
        if ending not in UNANSWERED or job.in_progress_at is None:
            return
        code, message = UNANSWERED[ending]
        try:
            owner, lines_id = (job.owner, job.input_file_id) if job.lines_file_id is None else (job.id, job.lines_file_id)
            file = await self.files.get(owner, lines_id)
        except UnknownFile:  # the client has deleted it
            return
        made.num_unanswered = 0
        async for piece in slices(self.files.lines(file, start=job.position.offset), job.position):
            requests = piece.requests(job.endpoint)
            made.num_unanswered += len(requests)
            yield b"".join(batch_lines.unanswered(job.id, request, code=code, message=message) for request in requests)

    async def join(self, kind: str, chunks: AsyncIterator[bytes], check: Callable[[], None]) -> str | None:
        async with await self.files.create(self.job.owner, is_charged=False) as writer:
            async for chunk in chunks:
                check()
                await writer.write(chunk)
            if not writer.num_bytes:
                return None
            file = await writer.commit(
                purpose=PURPOSE,
                filename=f"{self.job.id}_{kind}.jsonl",
                expires_after_seconds=self.job.output_expires_seconds or self.files.settings.batch_expiry_seconds,
                file_id=file_id(self.job.id, kind),
            )
        return file.id

    async def remove_parts(self, shards: list[ShardFiles]) -> None:
        """Deletes what only the work needed."""
        for part in (self.lines_id, *(part for shard in shards for part in (shard.output, shard.error))):
            if part is not None:
                with suppress(UnknownFile):  # an earlier attempt deleted it, or the input was not converted
                    await self.files.delete(self.job.id, part)


def file_id(batch_id: str, kind: str) -> str:
    """The id of a batch's file: as hard to guess as the batch's own."""
    return "file-" + hashlib.blake2b(f"{batch_id} {kind}".encode(), digest_size=12).hexdigest()
