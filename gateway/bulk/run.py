"""One run of `gateway embed`: begins or goes on, and ends with the files that were asked for, or one line that says why not."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.bulk import job as jobs
from gateway.bulk.job import BulkJob, differences
from gateway.bulk.journal import Checkpoint, Journal
from gateway.bulk.output import Output
from gateway.bulk.pipeline import embed_all, open_source
from gateway.bulk.progress import Progress
from gateway.bulk.row import Columns
from gateway.bulk.source import Format, RowSource, format_of
from gateway.bulk.worker import BulkWorker, EmbedOptions
from gateway.config import LongInput
from gateway.embedding.catalog import Model
from gateway.embedding.prompt import resolve_input_type
from gateway.errors import InvalidValue, OperatorError


@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """As the command line gives them. `column` None is "text", `id_column` None the row's number.

    `start_seconds` is how long a model may take to be ready, None for ever.
    """

    input: Path
    output: Path
    form: Format | None = None
    column: str | None = None
    id_column: str | None = None
    dimensions: int | None = None
    input_type: str | None = None
    long_input: LongInput | None = None
    in_flight: int = 1
    patience_seconds: float = 300.0
    start_seconds: float | None = None
    overwrite: bool = False
    restart: bool = False


class BulkRun:
    """`model` is started by it, and closed by whoever made it."""

    def __init__(self, options: BulkOptions, model: Model) -> None:
        """Raises OperatorError for options that cannot work, before anything is done."""
        self.options = options
        self.model = model
        self.form = format_of(options.input, options.form)
        if self.form == "text" and (options.column or options.id_column):
            raise OperatorError("text lines have no columns: --column and --id are for the other formats")
        if not options.input.is_file():
            what = "is no plain file, and only those can be read again after a kill" if options.input.exists() else "does not exist"
            raise OperatorError(f"{options.input} {what}")
        self.output = Output(options.output)
        if options.output.exists() and options.output.samefile(options.input):
            raise OperatorError(f"{options.output} is the input")
        self.columns = Columns(options.column or "text", options.id_column)
        self.journal = Journal(self.output.unfinished)

    async def to_end(self) -> Checkpoint:
        """What is in the output. Raises OperatorError, and OSError for a disk that is full or a file that cannot be read.

        Cancelled, it leaves whole shards, and `journal.done` tells how many rows.
        """
        options, journal = self.options, self.journal
        source = open_source(options.input, self.form, self.columns)
        try:
            if not options.overwrite and not journal.folder.exists():
                self.output.refuse_to_replace(journal)
            journal.acquire()
            if options.restart:
                journal.clear()
            if not options.overwrite:
                self.output.refuse_to_replace(journal)
            file = jobs.file_of(options.input)
            before = journal.job()
            if before is not None:
                self.refuse_another(before, self.job_like(before, file))
            if journal.is_complete and before is not None:  # a process ended while it moved the files
                journal.recall()
            else:
                await self.embed(file, source)
            done = journal.done
            self.output.publish(journal)
            return done
        finally:
            source.close()
            journal.close()

    async def embed(self, file: jobs.InputFile, source: RowSource) -> None:
        """All rows that are left, to files that are ready to be moved."""
        journal = self.journal
        await self.start_model()
        job = self.job(file)
        before = journal.job()
        if before is not None:
            self.refuse_another(before, job)
        journal.open(job)
        if journal.done.row:
            sys.stderr.write(f"going on after {journal.done.row:,} rows\n")
        worker = BulkWorker(
            self.model.embedder,
            EmbedOptions(job.dimensions, self.input_type(), self.options.long_input, self.model.row.layer_norm_before_cut),
            in_flight=self.options.in_flight,
            patience_seconds=self.options.patience_seconds,
        )
        progress = Progress(sys.stderr, begin=journal.done, size=source.size)
        try:
            await embed_all(source, worker, journal, in_flight=self.options.in_flight, show=progress.show)
        finally:
            progress.end()
        if jobs.file_of(self.options.input) != file:
            raise OperatorError(f"{self.options.input} was changed while it was read: --restart begins anew")
        rates = ", ".join(progress.rates(journal.done))
        sys.stderr.write(f"{journal.done.row:,} rows, {rates}\n")
        self.output.assemble(journal, job)

    async def start_model(self) -> None:
        try:
            async with asyncio.timeout(self.options.start_seconds):
                await self.model.start()
        except TimeoutError:
            told = f"did not answer for {self.options.start_seconds:.0f} seconds: {self.model.embedder.health().detail}"
            raise OperatorError(f"models[{self.model.name}] {told}") from None

    def input_type(self) -> str | None:
        """The loaded model's own name for the prompt. Raises OperatorError naming those it has."""
        try:
            return resolve_input_type(self.options.input_type, self.model.embedder.describe(), param="--input-type")
        except InvalidValue as error:
            raise OperatorError(error.message) from None

    def job(self, file: jobs.InputFile) -> BulkJob:
        """What this run does with the model that was loaded. Raises OperatorError for more dimensions than it has."""
        about = self.model.embedder.describe()
        dimensions = self.options.dimensions or about.dimensions
        if dimensions > about.dimensions:
            raise OperatorError(f"--dimensions: the model's vectors have {about.dimensions}")
        return self.job_of(file, about.fingerprint, dimensions, self.options.long_input or about.long_input)

    def job_like(self, before: BulkJob, file: jobs.InputFile) -> BulkJob:
        """What this run does, as far as that is known without its model."""
        dimensions, long_input = self.options.dimensions or before.dimensions, self.options.long_input or before.long_input
        return self.job_of(file, before.fingerprint, dimensions, long_input)

    def job_of(self, file: jobs.InputFile, fingerprint: str, dimensions: int, long_input: str) -> BulkJob:
        return BulkJob(
            file=file,
            format=self.form,
            column=self.columns.text,
            id_column=self.columns.id,
            model=self.model.name,
            fingerprint=fingerprint,
            dimensions=dimensions,
            input_type=self.options.input_type,
            long_input=long_input,
        )

    def refuse_another(self, before: BulkJob, now: BulkJob) -> None:
        if found := differences(before, now):
            raise OperatorError(
                f"{self.output.unfinished} is unfinished work of another run: {'; '.join(found)}. --restart throws it away"
            )
