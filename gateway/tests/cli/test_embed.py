"""`gateway embed` as a user runs it: to the end, killed and gone on with, stopped, refused."""

import json
import os
import pty
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from gateway.cli.load.texts import sentences
from gateway.engine.weights import package_folder
from gateway.tests.cli.conftest import Command, told
from gateway.tests.cli.slow_backend import hashed

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 60
END_SECONDS = 200  # of a whole run, one that compiles a model included
ROWS = 30_000  # fifteen shards
MB = 1024 * 1024


class Site:
    """A folder to run in, with the slow backend installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "site" / "slow_backend-1.0.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-backend\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text("[gateway.backends]\nslow = gateway.tests.cli.slow_backend:backend\n")

    def configure(self, **settings: object) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        (self.folder / "gateway.toml").write_text("\n".join(['[[models]]\nname = "m"\nbackend = "slow"', *lines]))

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
        return subprocess.Popen(
            [sys.executable, "-m", "gateway", "embed", *arguments],
            env={
                **environ,
                "PYTHONPATH": f"{self.folder / 'site'}{os.pathsep}{ROOT}",
                "GATEWAY_DATA_DIR": str(self.folder / "data"),
            },
            cwd=self.folder,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *arguments: str, **options: object) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=END_SECONDS)
        finally:
            process.kill()
            process.wait()
        return process.returncode, out, err


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.configure()
    return site


@pytest.fixture
def rows(site: Site) -> Path:
    """30,000 texts with ids, four of them bad."""
    path = site.folder / "rows.jsonl"
    with path.open("w") as file:
        for number in range(ROWS):
            text = {5000: "poison", 7000: "", 9000: 5}.get(number, f"text {number}")
            file.write("not JSON\n" if number == 11_000 else json.dumps({"key": f"k{number}", "text": text}) + "\n")
    return path


def until_begun(process: subprocess.Popen[str], journal: Path) -> None:
    """Until the process works on shards."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not journal.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize(("name", "seed"), [("a.npy", 1), ("a.parquet", 2)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_bytes_of_an_unbroken_one(site: Site, rows: Path, name: str, seed: int):
    site.configure(seconds=0.03)
    asked = ("rows.jsonl", "--id", "key", "-o")
    code, out, err = site.run(*asked, f"unbroken-{name}")
    assert code == 1, err
    assert "30,000 rows: 29,996 embedded, 4 rejected" in out
    chance, num_killed = random.Random(seed), 0
    while num_killed < 5:
        process = site.start(*asked, name)
        until_begun(process, site.folder / f"{name}.unfinished" / "vectors.npy")
        time.sleep(chance.uniform(0, 0.25))  # any moment will do
        process.kill()
        process.communicate(timeout=WAIT_SECONDS)
        num_killed += 1
        if process.returncode != -signal.SIGKILL:
            break
        assert not (site.folder / name).exists()
    assert num_killed > 2
    code, _, err = site.run(*asked, name)
    assert code == 1, err
    for suffix in ("", ".rejected.jsonl", *([".ids.jsonl"] if name == "a.npy" else [])):
        assert (site.folder / f"{name}{suffix}").read_bytes() == (site.folder / f"unbroken-{name}{suffix}").read_bytes()
    assert not (site.folder / f"{name}.unfinished").exists()
    refused = [json.loads(line) for line in (site.folder / f"{name}.rejected.jsonl").read_text().splitlines()]
    assert [(each["row"], each["id"]) for each in refused] == [(5000, "k5000"), (7000, "k7000"), (9000, "k9000"), (11000, None)]


def test_vectors_are_those_of_the_texts(site: Site, rows: Path):
    assert site.run("rows.jsonl", "--id", "key", "-o", "a.parquet")[0] == 1
    table = pyarrow.parquet.read_table(site.folder / "a.parquet")
    ids = table["id"].to_pylist()
    assert ids == [f"k{number}" for number in range(ROWS) if number not in (5000, 7000, 9000, 11_000)]
    vectors = np.array(table["embedding"].combine_chunks().flatten()).reshape(-1, 8)
    expected = np.stack([hashed(f"text {name[1:]}", 8) for name in ids])
    np.testing.assert_allclose(vectors, expected, atol=1e-3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_so_and_can_be_gone_on_with(site: Site, rows: Path, number: int, code: int):
    site.configure(seconds=0.1)
    process = site.start("rows.jsonl", "-o", "a.npy")
    journal = site.folder / "a.npy.unfinished" / "journal"
    deadline = time.monotonic() + WAIT_SECONDS
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert "rows are done, and the same command goes on with the rest" in err
    site.configure()
    code, out, err = site.run("rows.jsonl", "-o", "a.npy")
    assert code == 1
    assert "going on after" in err
    assert "30,000 rows" in out


def test_another_model_than_that_of_the_unfinished_work_is_refused(site: Site, rows: Path):
    site.configure(seconds=1.0)  # the first run must not end before the second one sees it
    process = site.start("rows.jsonl", "-o", "a.npy")
    until_begun(process, site.folder / "a.npy.unfinished" / "vectors.npy")
    busy = site.run("rows.jsonl", "-o", "a.npy")
    process.kill()
    process.communicate(timeout=WAIT_SECONDS)
    assert busy == (2, "", "gateway: another process is at work in a.npy.unfinished\n")
    site.configure(weights="b")
    code, out, err = site.run("rows.jsonl", "-o", "a.npy")
    assert (code, out) == (2, "")
    assert "unfinished work of another run: the model's vectors (weights or configuration changed). --restart throws it away" in err
    assert site.run("rows.jsonl", "-o", "a.npy", "--restart")[0] == 1


def test_a_disk_that_is_full_is_one_line_and_what_was_done_is_kept(site: Site, rows: Path):
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # three shards of vectors

    code, out, err = site.run("rows.jsonl", "-o", "a.npy", preexec_fn=small_disk)
    assert (code, out) == (2, "")
    [line] = [line for line in err.splitlines() if line.startswith("gateway: ")]
    assert line == "gateway: a.npy.unfinished cannot be written: File too large; what was done is kept"
    assert "Traceback" not in err
    code, _, err = site.run("rows.jsonl", "-o", "a.npy")
    assert code == 1
    assert "going on after" in err
    assert np.load(site.folder / "a.npy").shape == (29_996, 8)


def test_memory_does_not_grow_with_the_input(site: Site):
    site.configure(dimensions=64)
    line = "id,text\n" + "".join(f"{number},some words of a text that is not very long\n" for number in range(1000))
    peaks = []
    for num_thousands in (10, 300):
        with (site.folder / "a.csv").open("w") as file:
            file.write("id,text\n")
            for _ in range(num_thousands):
                file.write(line.removeprefix("id,text\n"))
        process = site.start("a.csv", "--id", "id", "-o", "a.parquet", "--overwrite")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.communicate()
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss * 1024)
    assert pyarrow.parquet.read_metadata(site.folder / "a.parquet").num_rows == 300_000
    assert peaks[1] - peaks[0] < 30 * MB, peaks


def test_the_model_is_chosen_by_name(site: Site, gateway: Command, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "gateway.toml").write_text('[[models]]\nname = "one"\nsource = "x"\n[[models]]\nname = "two"\nsource = "y"\n')
    assert "--model: which one? There are one, two" in told(gateway("embed", "a.txt", "-o", "a.npy"))
    assert "no model has the name or alias 'three'; there are one, two" in told(
        gateway("embed", "a.txt", "-o", "a.npy", "--model", "three")
    )
    (tmp_path / "gateway.toml").write_text('[[models]]\nname = "one"\nsource = "./nowhere"\n')
    assert "the model folder nowhere does not exist" in told(gateway("embed", "a.txt", "-o", "a.npy")).replace("./", "")
    assert not (tmp_path / "a.npy.unfinished").exists()
    assert "does not exist" in told(gateway("embed", "none.txt", "-o", "a.npy"))
    assert "is no file, and no pipe either" in told(gateway("embed", "/dev/null", "-o", "a.npy", "--format", "text"))


def test_without_the_extra_parquet_is_refused_in_one_line(site: Site, rows: Path):
    (site.folder / "site" / "pyarrow.py").write_text("raise ImportError")
    needed = (2, "", "gateway: Parquet needs the package pyarrow: pip install pyarrow\n")
    assert site.run("rows.jsonl", "-o", "a.parquet") == needed
    assert site.run("a.parquet", "-o", "a.npy")[0] == 2
    assert site.run("rows.jsonl", "-o", "a.npy")[0] == 1


def test_standard_input_is_an_input_and_the_last_line_is_one(site: Site):
    table = "id;text\n7;a\n8;b;c\n9;poison\n10;d\n"
    (site.folder / "a.csv").write_text(table)
    with (site.folder / "a.csv").open() as file:
        code, out, err = site.run("-", "--format", "csv", "--delimiter", ";", "-o", "a.npy", stdin=file)
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("a.npy: 4 rows: 2 embedded, 2 rejected, ")
    assert (site.folder / "a.npy.ids.jsonl").read_text() == "7\n10\n"
    assert err.splitlines() == [
        "rejected rows are listed in a.npy.rejected.jsonl; why:",
        (
            "  1  it has 3 fields, and the header 2: a ';' that no quotes protect?"
            " (--delimiter and --quote say how fields are told apart)"
        ),
        "  1  The model cannot embed text: it gave a vector with values that are not numbers",
    ]
    code, out, err = site.run("-", "-o", "b.npy", stdin=subprocess.DEVNULL)
    assert (code, out) == (2, "")
    assert "its name does not tell its format; say --format" in err


def test_a_terminal_gets_one_line_at_the_end_and_nothing_raw_of_a_file(site: Site):
    (site.folder / "a.csv").write_text("id,te\x1b[31mxt\n1,a\n")
    (site.folder / "b\x1b[31m.txt").write_text("a\nb\n")
    main, terminal = pty.openpty()
    seen = []
    for arguments in (("a.csv", "-o", "a.npy"), ("b\x1b[31m.txt", "-o", "b\x1b[31m.npy"), ("-", "--format", "csv", "-o", "c.npy")):
        process = site.start(*arguments, stdin=terminal, stdout=terminal, stderr=terminal)
        process.wait(timeout=END_SECONDS)
        seen.append(os.read(main, 100_000).decode())
    for file in (main, terminal):
        os.close(file)
    assert "has no column 'text'; it has id, te\\x1b[31mxt" in seen[0]
    assert "standard input is a terminal" in seen[2]
    shown = [line for line in re.split(r"[\r\n]+", seen[1]) if line.strip()]
    assert [line for line in shown if not line.startswith("100%")] == [shown[-1]]
    assert shown[-1].startswith("b\\x1b[31m.npy: 2 rows: 2 embedded, 0 rejected, ")
    assert not any("\x1b" in each for each in seen)


@pytest.mark.timeout(400)
def test_minilm_killed_and_gone_on_with_gives_the_very_bits_of_an_unbroken_run(tmp_path: Path):
    site = Site(tmp_path)
    texts = sentences()[:700]
    (tmp_path / "a.txt").write_text("".join(f"{number} {texts[number % 700][:40]}\n" for number in range(4200)))
    code, _, err = site.run("a.txt", "-o", "unbroken.npy")
    assert code == 0, err
    process = site.start("a.txt", "-o", "a.npy")
    journal = tmp_path / "a.npy.unfinished" / "journal"
    deadline = time.monotonic() + WAIT_SECONDS
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == -signal.SIGKILL
    code, _, err = site.run("a.txt", "-o", "a.npy")
    assert code == 0, err
    assert "going on after 2,048 rows" in err or "going on after 4,096 rows" in err
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "unbroken.npy").read_bytes()
    assert np.load(tmp_path / "a.npy").shape == (4200, 384)
    the_folder_of_a_model_will_do(site)


def the_folder_of_a_model_will_do(site: Site) -> None:
    """And what it cannot read at once is counted, and listed when that is asked for."""
    model = site.folder / "another name"
    model.symlink_to(package_folder("sentence-transformers/all-MiniLM-L6-v2") or "")
    (site.folder / "long.csv").write_text(f"id,text\n7,short\n8,{'many words ' * 300}\n")
    code, out, err = site.run("long.csv", "-o", "long.parquet", "--model", "another name", "--report")
    assert code == 0, err
    assert out.startswith("long.parquet: 2 rows: 2 embedded, 0 rejected, 1 chunked (long.parquet.report.jsonl), ")
    told = json.loads((site.folder / "long.parquet.report.jsonl").read_text())
    assert told == {"row": 1, "id": 8, "tokens": 602, "treatment": "chunked", "line": 3}
    code, _, err = site.run("long.csv", "-o", "b.npy", "--model", "./nowhere")
    assert (code, err) == (2, "gateway: the model folder nowhere does not exist\n")
