"""The table of files as the event loop uses it: each call runs in the table's own thread."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gateway.access.database import Database
from gateway.access.worker import WorkerThread
from gateway.errors import KeyStoreUnavailable, StorageUnavailable
from gateway.files.table import FileTable
from gateway.log import get_logger
from gateway.metrics.files import FileMetrics

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = get_logger()


class FileRecords:
    """`clock` gives Unix seconds."""

    def __init__(self, database: Database, metrics: FileMetrics, *, clock: Callable[[], float]) -> None:
        self.database = database
        self.metrics = metrics
        self.clock = clock
        self.table = FileTable(database, clock=clock)
        self.worker = WorkerThread("files")

    async def start(self) -> None:
        """Opens the database. Raises OperatorError."""
        await self.worker.run(self.database.open)

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Runs a method of the table. Raises StorageUnavailable if the database fails; the log says why."""
        try:
            return await self.worker.run(work, *args, **kwargs)
        except KeyStoreUnavailable as error:
            self.metrics.failures.labels("table").inc()
            log.warning("file_table_failed", reason=str(error))
            raise StorageUnavailable from None

    async def close(self) -> None:
        self.worker.close()
        self.database.close()
