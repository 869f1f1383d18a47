"""The same input is the same content, also of what comes through a pipe."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from gateway.embedding.embedder import Prepared, Vectors
from gateway.errors import OperatorError, Overloaded
from gateway.testing.fakes import FakeEmbedder
from gateway.tests.bulk.conftest import Company, broken, embedded, run_of


async def test_content_and_not_the_time_it_was_written_decides_whether_an_input_changed(lines, tmp_path):
    await broken(lines, tmp_path / "a.npy", after=1)
    content = lines.read_bytes()
    lines.unlink()
    lines.write_bytes(content)
    os.utime(lines, ns=(1, 1))
    embedder = Company()
    await embedded(embedder, lines, tmp_path / "a.npy")
    assert embedder.num_embedded == 2
    about = lines.stat()
    await broken(lines, tmp_path / "b.npy", after=1)
    lines.write_bytes(content[:-2] + b"X\n")  # far behind what was read, and by its times the same
    os.utime(lines, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(OperatorError, match="the input file was changed"):
        await embedded(Company(), lines, tmp_path / "b.npy")


async def test_an_input_that_is_touched_while_it_is_read_is_the_same_input(lines, tmp_path):
    class Touching(FakeEmbedder):
        async def embed(self, prepared):
            os.utime(lines)
            return await super().embed(prepared)

    assert (await embedded(Touching(), lines, tmp_path / "a.npy")).num_vectors == 5000


def pipe(path: Path, content: bytes) -> threading.Thread:
    """A named pipe, and who writes into it."""
    if not path.exists():
        os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(content,))
    thread.start()
    return thread


async def test_what_comes_through_a_pipe_can_be_gone_on_with_when_the_same_comes_again(lines, tmp_path):
    content, fifo, output = lines.read_bytes(), tmp_path / "fifo", tmp_path / "a.npy"
    await embedded(Company(), lines, tmp_path / "plain.npy")
    writer = pipe(fifo, content)

    class Breaking(Company):
        async def embed(self, prepared: Prepared) -> Vectors:
            if self.num_embedded == 2:
                raise Overloaded
            return await super().embed(prepared)

    with pytest.raises(OperatorError, match="still fails"):
        await embedded(Breaking(), fifo, output, form="text", patience_seconds=0)
    writer.join()
    writer = pipe(fifo, content + b"more\n")
    with pytest.raises(OperatorError, match="the input file was changed"):
        await embedded(Company(), fifo, output, form="text")
    writer.join()
    writer, embedder = pipe(fifo, content), Company()
    await embedded(embedder, fifo, output, form="text")
    writer.join()
    assert embedder.num_embedded == 1
    assert output.read_bytes() == (tmp_path / "plain.npy").read_bytes()
    assert not (tmp_path / "a.npy.unfinished").exists()


async def test_a_run_that_waits_for_a_pipe_can_be_stopped(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    run = run_of(FakeEmbedder(), tmp_path / "fifo", tmp_path / "a.npy", form="text")
    task = asyncio.create_task(run.to_end())
    while not (run.journal.folder / "input.new").exists():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]
