"""The output files: assembled from the journal, then published by renames, once.

`OUTPUT` itself is moved last. So if it is new, it is complete, and so are the files beside it. If a process ends between the moves,
the next run does the rest.
"""

import os
from pathlib import Path

import msgspec

from gateway.bulk import npy, parquet
from gateway.bulk.carried_columns import Kept
from gateway.bulk.disk import sync_file, sync_folder
from gateway.bulk.job import BulkJob
from gateway.bulk.journal import IDS, LONG, REJECTED, VECTORS, Journal
from gateway.bulk.row import shown
from gateway.bulk.source import RowSource
from gateway.errors import OperatorError

PARQUET = "vectors.parquet"
ENDINGS = (".parquet", ".pq", ".npy")


class Output:
    """The files of one output. `keep`: copy columns of the input. `report`: list the texts that were chunked or cut.

    Raises OperatorError if the name's ending is no output format, or the format cannot store what is asked.
    """

    def __init__(self, path: Path, *, keep: bool = False, report: bool = False) -> None:
        self.path = path
        self.keeps = keep
        self.reports = report
        if path.suffix.lower() not in ENDINGS:
            raise OperatorError(f"{shown(path)}: an output ends in .parquet or .npy")
        self.is_parquet = path.suffix.lower() != ".npy"
        if keep and not self.is_parquet:
            raise OperatorError(f"--keep: {shown(path)} holds vectors alone; a .parquet has columns beside them")
        if self.is_parquet:
            parquet.arrow()
        if not path.parent.is_dir():
            raise OperatorError(f"{shown(path)}: there is no folder {shown(path.parent)}")
        if path.is_dir():
            raise OperatorError(f"{shown(path)} is a folder")
        self.rejected = path.with_name(path.name + ".rejected.jsonl")
        self.ids = path.with_name(path.name + ".ids.jsonl")
        self.long = path.with_name(path.name + ".report.jsonl")
        self.unfinished = path.with_name(path.name + ".unfinished")

    @property
    def moves(self) -> dict[str, Path]:
        """The final paths by the names in the unfinished folder, in the order of the moves."""
        listed = {REJECTED: self.rejected, **({LONG: self.long} if self.reports else {})}
        if self.is_parquet:
            return {**listed, PARQUET: self.path}
        return {**listed, IDS: self.ids, VECTORS: self.path}

    def refuse_to_replace(self, journal: Journal) -> None:
        """Raises OperatorError if a file exists that this run would replace."""
        for name, target in self.moves.items():
            was_moved = journal.is_complete and not (journal.folder / name).exists()
            if target.exists() and not was_moved:
                raise OperatorError(f"{shown(target)} exists: --overwrite replaces it once all is done")

    def assemble(self, journal: Journal, job: BulkJob, source: RowSource) -> None:
        """Writes the files in their final form, still in the unfinished folder. Idempotent. Raises OSError."""
        done = journal.done
        if self.is_parquet:
            self.write_parquet(journal, job, source)
        else:
            vectors = journal.folder / VECTORS
            with vectors.open("r+b") as header:
                header.write(job.row_type.header(done.num_vectors))
            sync_file(vectors)
            if not source.is_typed and not done.are_integers:
                _write_as_strings(journal)
        if not done.num_rejected:
            (journal.folder / REJECTED).unlink(missing_ok=True)
            self.rejected.unlink(missing_ok=True)  # of an older output, which is replaced as a whole
        if not self.reports:
            self.long.unlink(missing_ok=True)
        journal.complete()

    def write_parquet(self, journal: Journal, job: BulkJob, source: RowSource) -> None:
        done = journal.done
        file = journal.folder / PARQUET
        about = {"gateway.model": job.model, "gateway.fingerprint": job.fingerprint}
        about |= {} if job.dtype == "float" else {"gateway.dtype": job.dtype}
        about |= {} if job.quantization is None else {"gateway.quantization": job.quantization}
        id_name = "row" if job.id_column is None else "id"
        kept = Kept(source, id_name=id_name, rejected=journal.rejected) if self.keeps else None
        schema = parquet.schema_of(
            id_name, job.row_type, are_integers=done.are_integers, kept=kept.fields if kept else [], about=about
        )
        rows = npy.Rows(journal.folder / VECTORS, job.row_type)
        groups = kept.groups() if kept and kept.fields else parquet.plain_groups(done.num_vectors)
        parquet.write(file, schema, rows=rows, ids=journal.ids(), groups=groups)
        sync_file(file)

    def publish(self, journal: Journal) -> None:
        """Moves the files that are not moved yet, and removes the folder. Raises OSError."""
        for name, target in self.moves.items():
            if (journal.folder / name).exists():
                os.replace(journal.folder / name, target)  # noqa: PTH105 - as in disk
        sync_folder(self.path.parent)
        journal.remove()


def _write_as_strings(journal: Journal) -> None:
    """Rewrites all ids as strings, as they were written: for an untyped input with an id that is not an integer."""
    new = journal.folder / (IDS + ".new")
    with new.open("wb") as file:
        for each in journal.ids():
            file.write(msgspec.json.encode(str(each)) + b"\n")
    sync_file(new)
    os.replace(new, journal.folder / IDS)  # noqa: PTH105 - as in disk
