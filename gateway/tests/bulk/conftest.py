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
