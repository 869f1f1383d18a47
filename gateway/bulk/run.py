"""One run of `gateway embed`: it begins or resumes a job, and ends with the output files, or one line that says why not."""

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gateway.bulk import reasons
from gateway.bulk.carried_columns import is_parquet
from gateway.bulk.content import STANDARD_INPUT, InputFile, input_of, spool, states_of
from gateway.bulk.folder import Folder, open_input
from gateway.bulk.job import BulkJob, differences
from gateway.bulk.journal import INPUT, Checkpoint, Journal
from gateway.bulk.options import BulkJobModel, BulkOptions
from gateway.bulk.output import Output
from gateway.bulk.pipeline import embed_all, in_stoppable_thread, in_thread
from gateway.bulk.progress import Progress
from gateway.bulk.retry import Patience
from gateway.bulk.row import shown
from gateway.bulk.source import RowSource, format_of
from gateway.bulk.worker import BulkWorker, EmbedOptions
from gateway.embedding.catalog import Model
from gateway.embedding.model import refuse_other_than_embedder
from gateway.errors import OperatorError


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The totals of the output. `rates` are this run's texts and tokens per second, in words; empty if it only moved files."""

    done: Checkpoint
    rates: list[str]
    rejections: Counter[str] = field(default_factory=Counter)


class BulkRun:
    """Starts `model`, but does not close it: its creator does."""

    def __init__(self, options: BulkOptions, model: Model) -> None:
        """Raises OperatorError for options that cannot work, before any work begins."""
        self.options = options
        self.model = model
        self.output = Output(options.output, keep=bool(options.reading.keep), report=options.report)
        self.is_pipe = str(options.input) == STANDARD_INPUT or options.input.is_fifo()
        self.form = "folder" if options.input.is_dir() else format_of(options.input, options.reading.form)
        if not self.is_pipe:
            self.refuse_input(options.input)
        self.journal = Journal(self.output.unfinished)

    def refuse_input(self, path: Path) -> None:
        if not path.is_file() and not path.is_dir():
            what = "is no file, and no pipe either" if path.exists() else "does not exist"
            raise OperatorError(f"{shown(path)} {what}")
        output = self.options.output
        if output.exists() and output.samefile(path):
            raise OperatorError(f"{shown(output)} is the input")
        if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
            raise OperatorError(f"{shown(output)} is in the folder that is read, and would be an input of the next run")

    async def to_end(self) -> BulkResult:
        """Runs to the end. If it is cancelled, the journal has whole shards only, and `journal.done` is the number of rows.

        Raises OperatorError, and OSError for a full disk or a file that cannot be read.
        """
        options, journal = self.options, self.journal
        source: RowSource | None = None
        try:
            if not options.overwrite and not journal.folder.exists():
                self.output.refuse_to_replace(journal)
            journal.acquire()
            if not options.overwrite and not options.restart:
                self.output.refuse_to_replace(journal)
            path = await self.spooled() if self.is_pipe else options.input
            source = await in_thread(open_input, path, options.reading)
            if options.reading.keep:
                is_parquet(source)
            if options.restart:
                journal.clear()
            if not options.overwrite:
                self.output.refuse_to_replace(journal)
            return await self.go_on(path, source)
        finally:
            if source is not None:
                source.close()
            journal.close()

    async def spooled(self) -> Path:
        """Spools the pipe to a file in the unfinished folder, and replaces that of an earlier run. Returns its path."""
        new = self.journal.folder / (INPUT + ".new")
        await in_stoppable_thread(lambda stop: spool(self.options.input, new, stop))
        return new.replace(self.journal.folder / INPUT)

    async def go_on(self, path: Path, source: RowSource) -> BulkResult:
        journal = self.journal
        files = source.files if isinstance(source, Folder) else [path]
        sys.stderr.writelines(f"{note}\n" for note in source.notes)
        states = states_of(files)
        file = await in_stoppable_thread(lambda stop: input_of(files, path, stop))
        before = journal.job()
        if before is not None:
            self.refuse_another(before, self.job_like(before, file, source))
        rates: list[str] = []
        if journal.is_complete and before is not None:  # an earlier process ended while it moved the files
            journal.recall()
        else:
            job, rates = await self.embed(file, source)
            if states_of(files) != states and await in_stoppable_thread(lambda stop: input_of(files, path, stop)) != file:
                raise OperatorError(f"{shown(path)} was changed while it was read: --restart begins anew")
            await in_thread(self.output.assemble, journal, job, source)
        found = await in_thread(reasons.count, (each.reason for each in journal.rejected(self.output.rejected)))
        self.output.publish(journal)
        return BulkResult(journal.done, rates, found)

    async def embed(self, file: InputFile, source: RowSource) -> tuple[BulkJob, list[str]]:
        """Embeds all rows that are left. Returns the job, and the rates in words."""
        options, journal = self.options, self.journal
        await self.start_model()
        about = self.model.embedder.describe()
        refuse_other_than_embedder(self.model.name, about.kind)
        job = options.job(file, self.form, source.columns, model=self.model)
        before = journal.job()
        if before is not None:
            self.refuse_another(before, job)
        journal.open(job)
        if journal.done.row:
            sys.stderr.write(f"going on after {journal.done.row:,} rows\n")
        input_type = options.resolve_input_type(about)
        worker = BulkWorker(
            self.model.embedder,
            EmbedOptions(
                job.dimensions,
                input_type,
                options.long_input,
                layer_norm=self.model.row.layer_norm_before_cut,
                dtype=job.dtype,
                ranges=options.ranges_of(self.model, job.dimensions),
            ),
            in_flight=options.in_flight,
            patience=Patience(options.patience_seconds),
        )
        progress = Progress(sys.stderr, begin=journal.done, share=lambda done: source.share(done.next))
        try:
            await embed_all(source, worker, journal, in_flight=options.in_flight, show=progress.show)
        finally:
            progress.end()
        return job, progress.rates(journal.done)

    async def start_model(self) -> None:
        try:
            async with asyncio.timeout(self.options.start_seconds):
                await self.model.start()
        except TimeoutError:
            reason = f"did not answer for {self.options.start_seconds:.0f} seconds: {self.model.embedder.health().detail}"
            raise OperatorError(f"models[{self.model.name}] {reason}") from None

    def job_like(self, before: BulkJob, file: InputFile, source: RowSource) -> BulkJob:
        """Returns this run's job before its model is loaded: what depends on the model is taken from `before`."""
        options = self.options
        dimensions, long_input = options.dimensions or before.dimensions, options.long_input or before.long_input
        made = BulkJobModel(self.model.name, before.fingerprint, dimensions, long_input, before.quantization)
        return options.job_as(made, file, form=self.form, columns=source.columns)

    def refuse_another(self, before: BulkJob, now: BulkJob) -> None:
        if found := differences(before, now):
            raise OperatorError(
                f"{shown(self.output.unfinished)} is unfinished work of another run: {'; '.join(found)}. --restart throws it away"
            )
