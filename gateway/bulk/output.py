"""Where the output goes, and how it gets there from the journal: all at once, and once only.

`OUTPUT` itself is moved last, so where it is new, it is whole, and so is what lies beside it. A process that ends among the moves
leaves the rest of them to the next.
"""

import os
from pathlib import Path

from gateway.bulk import npy, parquet
from gateway.bulk.disk import sync_file, sync_folder
from gateway.bulk.job import BulkJob
from gateway.bulk.journal import IDS, REJECTED, VECTORS, Journal
from gateway.errors import OperatorError

PARQUET = "vectors.parquet"
ENDINGS = (".parquet", ".pq", ".npy")


class Output:
    """The files of one output. Raises OperatorError for a name that tells no format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix.lower() not in ENDINGS:
            raise OperatorError(f"{path}: an output ends in .parquet or .npy")
        self.is_parquet = path.suffix.lower() != ".npy"
        if self.is_parquet:
            parquet.arrow()
        if not path.parent.is_dir():
            raise OperatorError(f"{path}: there is no folder {path.parent}")
        self.rejected = path.with_name(path.name + ".rejected.jsonl")
        self.ids = path.with_name(path.name + ".ids.jsonl")
        self.unfinished = path.with_name(path.name + ".unfinished")

    @property
    def moves(self) -> dict[str, Path]:
        """From names in the folder of unfinished work, in their order."""
        if self.is_parquet:
            return {REJECTED: self.rejected, PARQUET: self.path}
        return {REJECTED: self.rejected, IDS: self.ids, VECTORS: self.path}

    def refuse_to_replace(self, journal: Journal) -> None:
        """Raises OperatorError where a file stands that this run would replace."""
        for name, target in self.moves.items():
            was_moved = journal.is_complete and not (journal.folder / name).exists()
            if target.exists() and not was_moved:
                raise OperatorError(f"{target} exists: --overwrite replaces it once all is done")

    def assemble(self, journal: Journal, job: BulkJob) -> None:
        """The files in their last form, still in the folder. Raises OSError; may be done again."""
        done = journal.done
        vectors = journal.folder / VECTORS
        if self.is_parquet:
            about = {"gateway.model": job.model, "gateway.fingerprint": job.fingerprint}
            rows = npy.blocks(vectors, done.num_vectors, job.dimensions, block_rows=parquet.OUTPUT_GROUP_ROWS)
            file = journal.folder / PARQUET
            schema = parquet.schema_of(job.dimensions, are_integers=done.are_integers, about=about)
            parquet.write(file, schema, blocks=rows, ids=journal.ids())
            sync_file(file)
        else:
            with vectors.open("r+b") as header:
                header.write(npy.header(done.num_vectors, job.dimensions))
            sync_file(vectors)
        if not done.num_rejected:
            (journal.folder / REJECTED).unlink(missing_ok=True)
            self.rejected.unlink(missing_ok=True)  # an older output's: everything is to be replaced
        journal.complete()

    def publish(self, journal: Journal) -> None:
        """Moves what was not moved yet, and removes the folder. Raises OSError."""
        for name, target in self.moves.items():
            if (journal.folder / name).exists():
                os.replace(journal.folder / name, target)  # noqa: PTH105 - as in disk
        sync_folder(self.path.parent)
        journal.remove()
