"""The schedule for writing the snapshot file: soon after a change, and before the file gets too old."""

import math
import time
from collections.abc import Callable

from gateway.access.keys.snapshot_file import Snapshot, SnapshotFile
from gateway.access.worker import WorkerThread
from gateway.background import BackgroundTask
from gateway.errors import OperatorError
from gateway.log import get_logger

SHARE_OF_AGE = 20  # the file is written again at a twentieth of its maximum age
SHARE_OF_TIME = 50  # writing takes at most a fiftieth of the time: a hundred thousand keys take a third of a second
CHANGE_SECONDS = 2.0  # between two writes if keys have changed

log = get_logger()


class SnapshotWriter:
    """Used on the event loop. A disk that hangs or is full delays nothing else. It is logged once, until it works again."""

    def __init__(self, file: SnapshotFile, *, max_age_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.file = file
        self.max_age_seconds = max_age_seconds
        self.clock = clock
        self.worker = WorkerThread("key-snapshot")
        self.background = BackgroundTask("key-snapshot", self.write, may_end=True)
        self.offered: Snapshot | None = None
        self.keys: object = None  # of the snapshot written last
        self.began_at = -math.inf
        self.write_seconds = 0.0
        self.is_failing = False

    def offer(self, snapshot: Snapshot) -> None:
        """Takes the current snapshot, and starts to write it if that is due."""
        if not self.background.is_running and self.background.death is None:
            pause = self.max_age_seconds / SHARE_OF_AGE
            if self.keys is not snapshot.keys:
                pause = min(pause, CHANGE_SECONDS)
            if self.clock() - self.began_at >= max(pause, SHARE_OF_TIME * self.write_seconds):
                self.offered = snapshot
                self.background.start()

    async def write(self) -> None:
        snapshot = self.offered
        if snapshot is None:
            return
        self.began_at = self.clock()
        try:
            await self.worker.run(self.file.write, snapshot)
        except (OSError, OperatorError) as error:
            if not self.is_failing:
                reason = (error.strerror or "") if isinstance(error, OSError) else "the disk gives no answer"
                log.warning("key_snapshot_not_written", file=str(self.file.path), reason=reason)
            self.is_failing = True
        else:
            self.keys, self.is_failing = snapshot.keys, False
        self.write_seconds = self.clock() - self.began_at

    async def close(self) -> None:
        await self.background.close()
        self.worker.close()
