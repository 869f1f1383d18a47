"""Runs in this process, with an embedder that exists already."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.bulk.journal import Checkpoint
from gateway.bulk.options import BulkOptions
from gateway.bulk.run import BulkRun
from gateway.bulk.source import InputOptions
from gateway.config import ModelRow
from gateway.embedding.catalog import Model
from gateway.embedding.embedder import Prepared, Vectors
from gateway.embedding.quantization import Ranges
from gateway.errors import OperatorError, Overloaded
from gateway.testing.fakes import FakeEmbedder, hashed


class Company(FakeEmbedder):
    """As a real network does, it gives a text other last bits in other company."""

    async def embed(self, prepared: Prepared) -> Vectors:
        vectors = await super().embed(prepared)
        company = hashed("".join(prepared.inputs.texts), self.dimensions) * np.float32(1e-3)
        return Vectors(vectors.rows + company)


Embed = Callable[..., object]


def run_of(embedder: FakeEmbedder, input: Path, output: Path, **options: object) -> BulkRun:  # noqa: A002 - as the option is called
    reading = InputOptions(**{name: options.pop(name) for name in [*options] if name in InputOptions.__dataclass_fields__})
    return BulkRun(BulkOptions(input=input, output=output, reading=reading, **options), Model(ModelRow(name="m"), embedder))


async def embedded(embedder: FakeEmbedder, input: Path, output: Path, **options: object) -> Checkpoint:  # noqa: A002
    return (await run_of(embedder, input, output, **options).to_end()).done


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """5,000 texts, which are three shards."""
    path = tmp_path / "some.txt"
    path.write_text("".join(f"text number {number}\n" for number in range(5000)), encoding="utf-8")
    return path


async def broken(input: Path, output: Path, *, after: int, ranges: Ranges | None = None, **options: object) -> None:  # noqa: A002
    """A run that ends when `after` shards are embedded, and with it what was done of the next."""

    class Breaking(Company):
        async def embed(self, prepared: Prepared) -> Vectors:
            if self.num_embedded == after:
                raise Overloaded
            return await super().embed(prepared)

    embedder = Breaking()
    embedder.about = {"ranges": ranges}
    with pytest.raises(OperatorError, match="still fails"):
        await embedded(embedder, input, output, patience_seconds=0, **options)
