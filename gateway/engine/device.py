"""A device thread: runs batches on one device, and is restarted if it dies."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from gateway.background import BackgroundThread
from gateway.embedding.embedder import MAX_NUMBERS
from gateway.embedding.sparse import sparse_row
from gateway.embedding.vectors import are_usable, is_usable
from gateway.engine.batcher import Batcher
from gateway.engine.encoder import AsyncEncoder, Encoder, OutOfMemory, Rows, Window
from gateway.engine.fidelity import Proof
from gateway.engine.work import AllZero, Job, NotFinite, TooLarge, TooManyNumbers, end_finished
from gateway.errors import ModelUnavailable
from gateway.log import get_logger
from gateway.metrics import ModelMetrics

MAX_RESTARTS = 3
RESTART_WINDOW_SECONDS = 60.0
PROBE = [Window([0] * 8)]  # of a shape that the warm-up has run

log = get_logger()


class DeviceBroken(Exception):
    """The device no longer runs an input that it ran when it was loaded. After an illegal access CUDA fails every later call."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch that the device computes, or that could not be launched; `rows` waits for its rows, or raises what went wrong."""

    batch: list[Job]
    rows: Rows
    started: float


class Device:
    """One device thread. If it dies, the requests of its batch fail with 503, and a new thread replaces it.

    It is replaced at most three times a minute, and at most three times without a successful batch in between. If a batch gives no
    valid vector at all, `proof` (a text whose vector is known) shows whether the texts or the device are to blame.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        batcher: Batcher,
        metrics: ModelMetrics,
        on_failed: Callable[[], None],
        proof: Proof | None = None,
    ) -> None:
        self.encoder = encoder
        self.proof = proof
        self.on_failed = on_failed
        self.batcher = batcher
        self.metrics = metrics
        self.current_batch: list[Job] = []
        self.deaths: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        self.num_deaths_in_a_row = 0
        self.finished_at = 0.0  # the last batch, so that of two that overlap no second counts twice
        self.failed = False
        self.thread = self.new_thread()

    def start(self) -> None:
        self.thread.start()

    def join(self, timeout_seconds: float) -> None:
        self.thread.close(timeout_seconds)

    def drop_encoder(self) -> None:
        """Forgets the encoder, so that its memory is freed. Call it after the thread's end."""
        del self.encoder

    def new_thread(self) -> BackgroundThread:
        return BackgroundThread(f"device-{self.metrics.name}", self.run_forever, may_end=True, on_death=self.on_thread_death)

    def run_forever(self) -> None:
        if self.encoder.info.is_async:
            self.run_ahead_forever(cast("AsyncEncoder", self.encoder))
            return
        while batch := self.batcher.next_batch():
            self.current_batch = batch
            self.run(batch)
            self.current_batch = []

    def run_ahead_forever(self, encoder: AsyncEncoder) -> None:
        """While the device runs a batch, forms, pads and copies the next one, so that the device goes from one to the other."""
        running: Launched | None = None
        while True:
            batch = self.batcher.next_batch_ahead() if running else self.batcher.next_batch()
            if not batch and running is None:
                return
            self.current_batch = [*(running.batch if running else ()), *batch]
            launched = _launched(encoder, batch) if batch else None
            if running:
                self.finish(running)
            running = launched
            self.current_batch = batch

    def on_thread_death(self) -> None:
        """Called by the dying thread. Fails the requests of its batch, and starts a new thread unless it died too often."""
        reason = self.thread.death
        self.batcher.end_batch()
        for work in {job.work for job in self.current_batch}:
            self.batcher.forget(work)
            work.end(ModelUnavailable("Its device is being restarted.", retry_after_seconds=1))
        self.current_batch = []
        self.deaths.append(time.monotonic())
        self.num_deaths_in_a_row += 1
        self.metrics.device_restarts.inc()
        is_often = len(self.deaths) > MAX_RESTARTS and self.deaths[-1] - self.deaths[0] < RESTART_WINDOW_SECONDS
        if is_often or self.num_deaths_in_a_row > MAX_RESTARTS:
            self.failed = True
            log.error("device_failed", model=self.metrics.name, reason=reason, restarts=MAX_RESTARTS)
            self.on_failed()
            return
        self.thread = self.new_thread()
        try:
            self.thread.start()
        except RuntimeError as error:  # the system has no thread left: a limit of processes, or no memory
            self.failed = True
            self.on_failed()
            log.error("device_failed", model=self.metrics.name, reason=str(error))  # noqa: TRY400 - a traceback would add nothing
            return
        log.error("device_died", model=self.metrics.name, reason=reason)

    def run(self, batch: list[Job]) -> None:
        """Embeds a batch; bisects one that fails, until each part runs or is a single input. Only that input's request fails.

        Running out of memory also makes all later batches smaller.
        """
        windows = [job.window for job in batch]
        self.finish(Launched(batch, lambda: self.encoder.embed(windows), time.perf_counter()))

    def finish(self, launched: Launched) -> None:
        """Waits for the rows of a batch and delivers them, or bisects it as `run` does."""
        batch = launched.batch
        lengths = [job.num_tokens for job in batch]
        padded_tokens = self.encoder.info.shapes.batch_tokens(lengths)
        started = max(launched.started, self.finished_at)
        try:
            rows = launched.rows()
            _refuse_other_shape(rows, (len(batch), self.encoder.info.network.dimensions))
        except (OutOfMemory, MemoryError):
            self.batcher.budget.shrink(padded_tokens)
            self.halve(batch, TooLarge(batch[0].position))
        except Exception as error:  # noqa: BLE001 - whatever a network raises must not fail the other requests
            self.halve(batch, error)
        else:
            real_tokens = sum(lengths)
            self.finished_at = time.perf_counter()
            self.batcher.budget.on_success()
            self.batcher.record_speed(real_tokens, self.finished_at - started)
            self.metrics.record_batch(num_inputs=len(batch), padded_tokens=padded_tokens, real_tokens=real_tokens)
            self.deliver(batch, rows)

    def halve(self, batch: list[Job], error: Exception) -> None:
        """Runs the halves of a failed batch. If the batch is a single input, its request fails with `error`.

        Raises DeviceBroken if the device is to blame and not the input.
        """
        if len(batch) == 1:
            if not isinstance(error, TooLarge):
                self.check_alive()
            self.fail(batch[0], error)
            return
        middle = len(batch) // 2
        self.run(batch[:middle])
        self.run(batch[middle:])

    def check_alive(self) -> None:
        """Embeds the proof, or a probe if there is none. Raises DeviceBroken if that fails or gives another vector."""
        try:
            rows = self.encoder.embed([self.proof.window] if self.proof else PROBE)
        except (OutOfMemory, MemoryError):
            return
        except Exception as error:
            raise DeviceBroken from error
        if self.proof and not self.proof.holds(rows, self.encoder.info.precision):
            raise DeviceBroken

    def deliver(self, batch: list[Job], rows: NDArray[np.float32]) -> None:
        """Delivers each row to its request. If no row is usable, checks the device; raises DeviceBroken if it fails."""
        kind = self.encoder.info.network.kind
        if kind != "sparse_encoder" and are_usable(rows, kind):
            self.num_deaths_in_a_row = 0
            _deliver_all(batch, rows)
        else:
            self.deliver_usable(batch, rows, is_usable(rows, kind))
        end_finished({job.work for job in batch})

    def deliver_usable(self, batch: list[Job], rows: NDArray[np.float32], has_vector: NDArray[np.bool_]) -> None:
        if has_vector.any():
            self.num_deaths_in_a_row = 0
        elif self.proof:
            self.check_alive()
        for job, row, is_good in zip(batch, rows, has_vector, strict=True):
            self.deliver_one(job, row, is_good=bool(is_good))

    def deliver_one(self, job: Job, row: NDArray[np.float32], *, is_good: bool) -> None:
        if not is_good:
            self.fail(job, (NotFinite if row.any() else AllZero)(job.position))
        elif self.encoder.info.network.kind == "sparse_encoder":
            self.deliver_sparse(job, sparse_row(row))
        else:
            job.work.deliver([job.position], row[None])

    def deliver_sparse(self, job: Job, row: NDArray[np.float32]) -> None:
        """Delivers a row's weights, or ends a request that has too many of them before they fill the memory."""
        job.work.num_numbers += row.size
        if job.work.num_numbers > MAX_NUMBERS:
            self.fail(job, TooManyNumbers(job.position))
        else:
            job.work.deliver([job.position], row)

    def fail(self, job: Job, error: Exception) -> None:
        self.batcher.forget(job.work)
        job.work.end(error)


def _launched(encoder: AsyncEncoder, batch: list[Job]) -> Launched:
    """What fails already here fails in its turn: after the batch before it is delivered."""
    started = time.perf_counter()
    try:
        return Launched(batch, encoder.launch([job.window for job in batch]), started)
    except Exception as error:  # noqa: BLE001 - whatever a network raises must not fail the other requests
        return Launched(batch, _raising(error), started)


def _raising(error: Exception) -> Rows:
    def rows() -> NoReturn:
        raise error

    return rows


def _deliver_all(batch: list[Job], rows: NDArray[np.float32]) -> None:
    """Delivers all rows of one request at once: its jobs stand together in a batch, and in each part of one."""
    start = 0
    for work, jobs in groupby(batch, key=attrgetter("work")):
        positions = [job.position for job in jobs]
        work.deliver(positions, rows[start : start + len(positions)])
        start += len(positions)


def _refuse_other_shape(rows: NDArray[np.float32], expected: tuple[int, int]) -> None:
    if rows.shape != expected:
        raise ValueError(f"the network gave rows of shape {rows.shape}, not {expected}")
