"""One batch, from its claim to its end: validate, answer, write the files. Each step may be cut short and done elsewhere.

The engine is that of `gateway embed`: slices in the input's order, read ahead and written behind. A slice is done once its replies
are in a file and its row is written, in one transaction that only the holder of the lease gets.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from gateway.access.keys.key import Caller
from gateway.background import BackgroundTask
from gateway.backoff import Backoff
from gateway.batches.conversion import UnreadableInput, converted, has_requests
from gateway.batches.endpoint import BatchRoad, OtherVectors
from gateway.batches.input_lines import Conversion
from gateway.batches.job import BatchJob, Ending, LineError, ShardFiles
from gateway.batches.output import OutputFiles
from gateway.batches.records import BatchRecords
from gateway.batches.slice import Slice, slices
from gateway.batches.store import LeaseLost
from gateway.batches.validation import Validation
from gateway.batches.worker import QUOTA_SECONDS, AnsweredSlice, BatchWorker
from gateway.bulk.pipeline import run_all
from gateway.config import BatchSettings
from gateway.errors import (
    GatewayError,
    InsufficientQuota,
    StorageUnavailable,
    UnknownFile,
    UnknownModel,
    WrongModelKind,
)
from gateway.files.store import FileStore
from gateway.files.stored_file import StoredFile
from gateway.log import get_logger
from gateway.metrics import BatchMetrics
from gateway.wire.batches import InputFormat

IN_FLIGHT_FAR = 4  # slices, with a model on another machine
RETRIES = Backoff(first_seconds=0.5, max_seconds=30.0)
BEATS = 3  # in the time of a lease
FINAL = (UnknownFile, UnknownModel, WrongModelKind)  # no further attempt helps

Reason = Literal["stopped", "cancelled", "expired", "revoked", "lost"]
Result = TypeVar("Result")

log = get_logger()


class BatchInterrupted(Exception):
    """The batch is not to be gone on with here, or at all: the message is the reason."""


class BatchFailed(Exception):
    """The batch cannot be answered."""

    def __init__(self, *errors: LineError) -> None:
        super().__init__(errors[0].code)
        self.errors = errors


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchParts:
    """What every run needs. `clock` gives Unix seconds; `road` the road of the configuration in effect."""

    records: BatchRecords
    files: Callable[[], FileStore]
    road: Callable[[], BatchRoad]
    settings: Callable[[], BatchSettings]
    metrics: BatchMetrics
    clock: Callable[[], float]


class BatchRun:
    """Works on a batch whose lease this gateway has. `job` is what is known of it."""

    def __init__(self, job: BatchJob, parts: BatchParts) -> None:
        self.job = job
        self.parts = parts
        self.store = parts.records.store
        self.is_stopping = asyncio.Event()
        self.has_lost_lease = False
        self.beat = BackgroundTask(f"lease-{job.id}", self.renew_forever, may_end=True)
        self.task: asyncio.Task[object] | None = None
        self.asker: Caller | None = None  # the key's owner, as it last was

    def stop(self) -> None:
        """Ends the work after the slices in hand."""
        self.is_stopping.set()

    async def to_end(self, failure: LineError | None = None) -> BatchJob:
        """Returns the batch as it is left: ended, or released for another gateway. With a `failure` it only makes it fail."""
        self.task = asyncio.current_task()
        self.beat.start()
        try:
            if self.job.ending is None and failure is not None:
                await self.decide("failed", failure)
            if self.job.ending is None:
                await self.work()
            if self.job.ending is not None:
                await self.finish(self.job.ending)
        except (BatchInterrupted, LeaseLost):
            pass
        except asyncio.CancelledError:
            if not self.has_lost_lease:
                raise
        except OtherVectors as error:
            log.warning("batch_left", batch=self.job.id, reason=str(error))
        finally:
            await self.beat.close()
            await self.release()
        return self.job

    async def release(self) -> None:
        if not self.job.has_ended and not self.has_lost_lease:
            try:
                await self.parts.records.run(self.store.release, self.job)
            except (LeaseLost, StorageUnavailable):
                log.info("batch_lease_not_released", batch=self.job.id)

    async def work(self) -> None:
        """Validates and answers, as far as it may; decides how the batch ends, if it does."""
        try:
            self.check()
            if self.job.status == "validating":
                await self.retry(self.validate)
            if self.job.status == "in_progress":
                await self.retry(self.answer)
                self.check()
                await self.decide("completed")
        except BatchFailed as failed:
            await self.decide("failed", *failed.errors)
        except UnknownFile:
            await self.decide("failed", LineError("file_not_found", f"The input file {self.job.input_file_id} was deleted."))
        except BatchInterrupted as error:
            await self.decide_interrupted(str(error))

    async def decide_interrupted(self, reason: str) -> None:
        """Decides the end that an interruption means, if it means one. Raises BatchInterrupted if it means none."""
        if reason == "cancelled":
            await self.decide("cancelled")
        elif reason == "expired":
            await self.decide("expired")
        elif reason == "revoked":
            await self.decide("failed", LineError("key_revoked", "The API key that made this batch was revoked, or has expired."))
        else:
            raise BatchInterrupted(reason)

    def check(self) -> None:
        """Raises BatchInterrupted if no further request is to be answered here."""
        if self.has_lost_lease:
            raise BatchInterrupted("lost")
        if self.job.status == "cancelling":
            raise BatchInterrupted("cancelled")
        if self.parts.clock() >= self.job.expires_at:
            raise BatchInterrupted("expired")
        if self.is_stopping.is_set():
            raise BatchInterrupted("stopped")

    def caller(self) -> Caller:
        """The key's owner, as it is now. Raises BatchInterrupted, and StoreUnavailable."""
        found = self.parts.road().caller_of(self.job.owner)
        if found is None:
            raise BatchInterrupted("revoked")
        self.asker = found
        return found

    async def default_model(self) -> str | None:
        """The model of requests that name none. Raises BatchInterrupted."""

        async def find() -> str | None:
            return self.job.default_model or self.parts.road().default_model(self.job.endpoint, self.caller())

        return await self.retry(find)

    async def input(self) -> StoredFile:
        """The file with the requests. Raises UnknownFile if the client has deleted the input, also if it was converted."""
        given = await self.persist(lambda: self.parts.files().get(self.job.owner, self.job.input_file_id))
        if (lines_id := self.job.lines_file_id) is None:
            return given
        return await self.persist(lambda: self.parts.files().get(self.job.id, lines_id))

    async def as_lines(self, given: StoredFile) -> StoredFile:
        """The requests of a file of any form, one a line. Raises BatchFailed, StorageUnavailable, and what `check` raises."""
        files, asked, settings = self.parts.files(), self.job.input_format or InputFormat(), self.parts.settings()
        if await has_requests(files, given, asked, max_line_bytes=self.parts.road().max_line_bytes):
            return given
        try:
            async with files.on_disk(given) as path:
                order = Conversion(
                    str(path), given.filename, self.job.endpoint, asked, settings.max_requests, settings.max_file_bytes
                )
                async with aclosing(converted(order, batch_id=self.job.id)) as chunks:
                    return await OutputFiles(self.job, files).write_lines(chunks, check=self.check)
        except UnreadableInput as error:
            raise BatchFailed(LineError("invalid_file", f"The input file cannot be read: {error}.", "input_file_id")) from None

    async def validate(self) -> None:
        """Reads the whole file. Makes the batch "in_progress". Raises BatchFailed if a rule is broken, and StorageUnavailable."""
        given, road = await self.input(), self.parts.road()
        file = await self.as_lines(given)
        found = Validation(
            self.job.endpoint, self.parts.settings(), max_line_bytes=road.max_line_bytes,
            default_model=await self.default_model(),
        )  # fmt: skip
        async for piece in self.pieces(file, max_line_bytes=found.max_line_bytes):
            self.check()
            await asyncio.to_thread(found.read, piece.contents, piece.start.line + 1)
            if found.is_hopeless:
                break
        if repeated := await asyncio.to_thread(found.finish):
            async for piece in self.pieces(file, max_line_bytes=found.max_line_bytes):
                for line, content in enumerate(piece.contents, piece.start.line + 1):
                    if line in repeated:
                        found.name_repeated(content, line)
        if found.errors:
            raise BatchFailed(*sorted(found.errors, key=lambda error: error.line or 0))
        fingerprints = {name: await self.fingerprint(name, line) for name, line in found.models.items()}
        begin = partial(
            self.store.begin, total=found.num_requests, model=next(iter(found.models), self.job.default_model),
            fingerprints=fingerprints, lines_file_id=None if file is given else file.id,
        )  # fmt: skip
        await self.update(begin)
        log.info("batch_begun", batch=self.job.id, key=self.job.owner, model=self.job.model, requests=self.job.total)

    async def fingerprint(self, model: str, line: int) -> str:
        """Loads a model. Returns its fingerprint. Raises BatchFailed if there is none that the key may use, or of another kind."""

        async def find() -> str:
            return await self.parts.road().fingerprint(self.job.endpoint, model, self.caller())

        try:
            return await self.retry(find)
        except UnknownModel:
            message = f"The provided model '{model}' is not supported by the Batch API."
            raise BatchFailed(LineError("model_not_found", message, "body.model", line)) from None
        except WrongModelKind as error:
            raise BatchFailed(LineError(error.code or "", error.message, "body.model", line)) from None

    async def answer(self) -> None:
        """Answers all requests that are left; if interrupted, those of the slices in hand.

        Raises BatchInterrupted, and StorageUnavailable: begun anew, it goes on where it was.
        """
        file = await self.input()
        is_far = self.parts.road().is_far(self.job.fingerprints or {})
        in_flight = IN_FLIGHT_FAR if is_far else 1
        worker = BatchWorker(
            self.job, self.parts.road, caller=self.caller, default_model=self.default_model, wait=self.wait, check=self.check,
            in_flight=in_flight,
        )  # fmt: skip
        with self.parts.road().keep(self.job.fingerprints or ()):
            async with aclosing(self.pieces(file)) as coming:
                await run_all(coming, worker.run, self.append, in_flight=in_flight)

    async def pieces(self, file: StoredFile, *, max_line_bytes: int | None = None) -> AsyncGenerator[Slice]:
        """Yields the slices that are left. Lines are bounded while they are validated, by the gateway that does it; no other may
        cut them by a bound of its own: positions are sums of their lengths.
        """
        position = self.job.position
        lines = self.parts.files().lines(file, start=position.offset, max_line_bytes=max_line_bytes)
        async for piece in slices(lines, position):
            yield piece

    async def append(self, done: AnsweredSlice) -> None:
        """Stores the replies of a slice. From then on they are never made again."""
        job = self.job
        output, error = [await self.write_part(lines) for lines in (done.outputs, done.errors)]
        counts = {
            "completed": job.completed + done.num_outputs,
            "failed": job.failed + done.num_errors,
            "input_tokens": job.input_tokens + sum(use.num_tokens for use in done.uses),
        }
        shard = ShardFiles(job.num_shards, output, error)
        await self.update(lambda now: self.store.append(now, shard, position=done.next, **counts))
        self.parts.metrics.requests.labels("completed").inc(done.num_outputs)
        self.parts.metrics.requests.labels("failed").inc(done.num_errors)
        if self.asker is not None:
            for use in done.uses:
                self.parts.road().record(self.asker, use)

    async def write_part(self, lines: bytes) -> str | None:
        if not lines:
            return None
        return await self.persist(lambda: OutputFiles(self.job, self.parts.files()).write_part(lines))

    async def finish(self, ending: Ending) -> None:
        """Makes the files of the replies, and ends the batch."""
        output = OutputFiles(self.job, self.parts.files())
        shards = await self.persist(lambda: self.parts.records.run(self.store.shards, self.job))
        made = await self.persist(lambda: output.assemble(shards, ending, check=self.check_files))
        values = {"output_file_id": made.output, "error_file_id": made.error, "failed": self.job.failed + made.num_unanswered}
        await self.update(lambda job: self.store.end(job, ending, **values))
        self.parts.metrics.ended.labels(ending).inc()
        log.info(
            "batch_ended", batch=self.job.id, key=self.job.owner, status=ending, requests=self.job.total,
            completed=self.job.completed, failed=self.job.failed,
            tokens=self.job.input_tokens, code=self.job.errors[0].code if self.job.errors else None,
        )  # fmt: skip
        try:
            await output.remove_parts(shards)
            await self.parts.records.run(self.store.forget_shards, self.job)
        except StorageUnavailable:
            log.info("batch_parts_left_to_sweeper", batch=self.job.id)

    def check_files(self) -> None:
        """Raises BatchInterrupted if the files are not to be written on here."""
        if self.has_lost_lease or self.is_stopping.is_set():
            raise BatchInterrupted("stopped")

    async def decide(self, ending: Ending, *errors: LineError) -> None:
        await self.update(lambda job: self.store.decide(job, ending, errors=errors))

    async def update(self, work: Callable[[BatchJob], BatchJob]) -> None:
        """Runs a method of the store on the batch until the database has it. Raises LeaseLost."""
        self.learn(await self.persist(lambda: self.parts.records.run(work, self.job)))

    def learn(self, found: BatchJob) -> None:
        if found.num_shards >= self.job.num_shards:  # a renewal that was answered late knows less
            self.job = found

    async def persist(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Tries until the database and the storage are there again. Raises BatchInterrupted once the gateway stops."""
        num_failures = 0
        while True:
            try:
                return await work()
            except StorageUnavailable as error:
                self.check_files()
                num_failures += 1
                await self.pause(error.outcome, num_failures)

    async def retry(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Tries until the storage, the keys and the model are there. Raises BatchInterrupted, and the errors of FINAL."""
        num_failures = 0
        while True:
            try:
                return await work()
            except FINAL:
                raise
            except GatewayError as error:
                num_failures += 1
                await self.wait(error, num_failures)

    async def wait(self, error: GatewayError | None, num_failures: int) -> None:
        """Pauses before another attempt to answer. Raises BatchInterrupted."""
        self.check()
        asked = QUOTA_SECONDS if isinstance(error, InsufficientQuota) else (error.retry_after_seconds if error else None)
        await self.pause(error.outcome if error else "internal_error", num_failures, at_least_seconds=asked or 0.0)
        self.check()

    async def pause(self, code: str, num_failures: int, *, at_least_seconds: float = 0.0) -> None:
        """Waits, until the gateway stops or the batch expires at most."""
        seconds = RETRIES.pause_seconds(num_failures, at_least_seconds=at_least_seconds)
        if num_failures == 1:
            log.info("batch_waits", batch=self.job.id, code=code, seconds=round(seconds, 1))
        left = max(0.0, self.job.expires_at - self.parts.clock())
        with suppress(TimeoutError):
            await asyncio.wait_for(self.is_stopping.wait(), min(seconds, left + 1.0))

    async def renew_forever(self) -> None:
        """Renews the lease; learns that the batch is cancelled. If the lease is lost it ends the work."""
        while True:
            seconds = self.parts.settings().lease_seconds
            await asyncio.sleep(seconds / BEATS)
            try:
                self.learn(await self.parts.records.run(partial(self.store.renew, seconds=seconds), self.job))
            except StorageUnavailable:
                continue  # what is computed can still be written once the database is there again
            except LeaseLost:
                if self.job.has_ended:
                    return
                log.warning("batch_lease_lost", batch=self.job.id)
                self.parts.metrics.leases_lost.inc()
                self.has_lost_lease = True
                if self.task is not None:
                    self.task.cancel()
                return
