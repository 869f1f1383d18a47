"""What is done is done, wherever the process ends; what is half done is not there."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from gateway.bulk.content import InputFile
from gateway.bulk.job import BulkJob
from gateway.bulk.journal import IDS, JOURNAL, LONG, REJECTED, VECTORS, Checkpoint, Journal
from gateway.bulk.outcome import LongRow, RejectedRow, ShardResult
from gateway.bulk.row import Position
from gateway.errors import OperatorError

JOB = BulkJob(
    file=InputFile(1, "2"), format="text", column="text", id_column=None, model="m", fingerprint="f", dimensions=4,
    input_type=None, long_input="chunk",
)  # fmt: skip
SHARDS = 5


def begun(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.acquire()
    journal.open(JOB)
    return journal


def append(journal: Journal, shard: int) -> None:
    vectors = np.full((3, 4), shard, dtype=np.float32)
    ids = [3 * shard + number for number in range(3)]
    rejected, long = [RejectedRow(shard, "x", "bad")], [LongRow(shard, "y", 300, "cut")]
    place = Position(4 * (shard + 1), shard)
    journal.append(ShardResult(next=place, vectors=vectors, ids=ids, rejected=rejected, long=long, num_tokens=7))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (VECTORS, IDS, REJECTED, LONG, JOURNAL)}


def states(folder: Path) -> list[dict[str, bytes]]:
    """What the files hold after none, one, two … shards."""
    journal = begun(folder)
    journal.files[VECTORS].flush()
    found = [contents(folder)]
    for shard in range(SHARDS):
        append(journal, shard)
        found.append(contents(folder))
    journal.close()
    return found


def test_wherever_writing_a_shard_ends_the_next_run_goes_on_from_the_last_whole_one(tmp_path):
    after = states(tmp_path / "unbroken")
    chance = random.Random(8)
    for _ in range(150):
        shard = chance.randrange(SHARDS)
        folder = tmp_path / "broken"
        shutil.copytree(tmp_path / "unbroken", folder)
        is_torn = False
        for name in (VECTORS, IDS, REJECTED, LONG, JOURNAL):  # written in this order; what follows a torn one was not begun
            before, whole = after[shard][name], after[shard + 1][name]
            end = len(before) if is_torn else chance.choice([len(whole), chance.randrange(len(before), len(whole))])
            is_torn = is_torn or end < len(whole)
            (folder / name).write_bytes(whole[:end])
        journal = begun(folder)
        done = shard if is_torn else shard + 1
        assert journal.done.row == 4 * done
        for rest in range(done, SHARDS):
            append(journal, rest)
        journal.close()
        assert contents(folder) == after[SHARDS]
        shutil.rmtree(folder)


def test_bytes_that_were_never_written_after_a_power_cut_are_no_line(tmp_path):
    after = states(tmp_path / "some")
    for tail in (b"\0" * 40 + b"\n", b"00000000 {}\n", after[1][JOURNAL][: len(after[1][JOURNAL]) // 2] + b"\n", b"\xff\n"):
        (tmp_path / "some" / JOURNAL).write_bytes(after[2][JOURNAL] + tail)
        journal = begun(tmp_path / "some")
        assert journal.done.row == 8
        journal.close()
        for name, content in after[SHARDS].items():
            (tmp_path / "some" / name).write_bytes(content)


def test_files_that_somebody_made_shorter_are_not_gone_on_with(tmp_path):
    states(tmp_path / "some")
    (tmp_path / "some" / IDS).write_bytes(b"0\n")
    journal = Journal(tmp_path / "some")
    with pytest.raises(OperatorError, match=r"ids\.jsonl is shorter than it was"):
        journal.open(JOB)
    journal.close()


def test_one_process_at_a_time(tmp_path):
    first = begun(tmp_path / "some")
    with pytest.raises(OperatorError, match="another process is at work in"):
        Journal(tmp_path / "some").acquire()
    append(first, 0)
    first.close()
    second = begun(tmp_path / "some")
    assert second.done.row == 4
    second.close()


def test_a_folder_in_which_nothing_was_begun_is_not_left_behind(tmp_path):
    journal = Journal(tmp_path / "some")
    journal.acquire()
    journal.close()
    assert not (tmp_path / "some").exists()


def test_what_is_forgotten_begins_anew(tmp_path):
    states(tmp_path / "some")
    journal = Journal(tmp_path / "some")
    journal.acquire()
    journal.clear()
    assert journal.job() is None
    journal.open(JOB)
    assert journal.done == Checkpoint()
    journal.close()
