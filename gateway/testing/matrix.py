"""The matrix of model families: `make models-matrix` serves each small model of `families`, and writes docs/models.md's table.

Each is compiled in bfloat16 and in float32, and run through torch. A cell is the worst cosine to sentence-transformers' `encode` in
float32: texts of 10 and 700 tokens, with and without a prompt, each alone and all in one padded batch.
"""

import argparse
import asyncio
import contextlib
import io
import math
import re
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs
from gateway.engine import compiler
from gateway.engine.compiler import CompileJob
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.fidelity import cosines
from gateway.engine.kind import kind_of
from gateway.engine.settings import LocalSettings
from gateway.engine.static_model import is_static
from gateway.errors import OperatorError
from gateway.metrics import Metrics
from gateway.testing.families import FAMILIES, Family

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- written by `make models-matrix` -->", "<!-- end of what `make models-matrix` writes -->"
HEAD = ("family", "for example", "compiled, bfloat16", "compiled, float32", "through torch")
RUNS = (("auto", "bfloat16"), ("auto", "float32"), ("torch", "float32"))
WORDS = "the capital of France is Paris and an attention mask tells the network which positions are padding "
TEXTS = ("How do I reset my password?", WORDS * 40, "a", "One two three: the red server.", WORDS * 3)
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one run: served with a worst cosine by a runtime in a precision, or refused with an error. It took `seconds`."""

    runtime: str = ""
    precision: str = ""
    cosine: float = -1.0
    error: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.error:
            return REFUSED
        return f"{math.floor(self.cosine * 1e5) / 1e5:.5f}"


def expected_of(folder: Path) -> dict[str | None, Any] | None:
    """The vectors of `encode`, without a prompt and with the query's; None if sentence-transformers cannot load the model."""
    try:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}).float()
        query: dict[str, Any] = {"prompt_name": "query"} if model.prompts.get("query") else {}
        return {
            None: model.encode_document(list(TEXTS), batch_size=1, prompt=""),
            "query": model.encode_query(list(TEXTS), batch_size=1, **query),
        }
    except Exception:  # noqa: BLE001 - whatever it is, there is nothing to compare with
        return None


async def run_one(folder: Path, *, runtime: str, precision: str, expected: Any) -> Cell:
    started = time.perf_counter()
    data = folder.parent / f"data-{runtime}-{precision}"
    is_network = runtime == "auto"
    settings = LocalSettings(
        source=str(folder), download=False, runtime="auto", precision="float32" if is_static(folder) else precision
    )  # type: ignore[arg-type]
    if not is_network and not is_static(folder):
        settings = LocalSettings(source=str(folder), download=False, runtime="torch", precision="float32")
    local = None
    try:
        kind_of(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OperatorError):
            if is_network or is_static(folder):  # in this process, which has the imports that a child takes seconds for
                asked = "numpy" if is_static(folder) else precision
                compiler.run(CompileJob(str(folder), str(folder), asked, str(data / "models")))
        context = BackendContext("m", LimitSettings(), EngineSettings(warmup_seconds=0), Metrics().of_model("m"), data)
        local = LocalEmbedder(settings, context)
        await local.start()
        told = local.describe()
        worst = await worst_cosine(local, expected)
        return Cell(told.runtime, told.precision, worst, seconds=time.perf_counter() - started)
    except OperatorError as error:
        return Cell(error=str(error).replace(str(folder), "FOLDER"), seconds=time.perf_counter() - started)
    finally:
        if local is not None:
            await local.close()


async def worst_cosine(local: LocalEmbedder, expected: dict[str | None, Any]) -> float:
    """-1 if there is nothing to compare with."""
    worst = 1.0 if expected else -1.0
    windows = []
    for input_type, vectors in expected.items():
        for text, vector in zip(TEXTS, vectors, strict=True):
            inputs = Inputs(
                [text], is_array=True, caller="a", deadline=math.inf, input_type=input_type, normalize=False, long_input="end"
            )
            prepared = await local.prepare(inputs)
            windows.append(prepared.work.windows[0])
            rows: Any = (await local.embed(prepared)).rows
            worst = min(worst, float(cosines(rows, vector[None])[0]))
    if not expected:
        return worst
    together = local.devices[0].encoder.embed(windows)  # one batch, mostly padding, with both prompts
    return min(worst, float(cosines(together, np.concatenate(list(expected.values()))).min()))


async def run_family(family: Family) -> list[Cell]:
    with tempfile.TemporaryDirectory(prefix="gateway-matrix-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = family.make(Path(name) / "model")
        expected = expected_of(folder)
        return [await run_one(folder, runtime=runtime, precision=precision, expected=expected or {}) for runtime, precision in RUNS]


def row_of(family: Family, cells: list[Cell]) -> str:
    """A row of the table. One note for all three cells if they say the same."""
    shown = [str(cell) for cell in cells]
    for index, cell in enumerate(cells):
        if not cell.error and cell.runtime == "numpy":
            shown[index] = f"numpy: {cell}"
        elif not cell.error and (cell.runtime == "torch") != (index == len(RUNS) - 1):
            shown[index] = f"torch, {cell.precision}: {cell}"
        elif not cell.error and index == 0 and cell.precision != "bfloat16":
            shown[index] = f"{cell.precision}: {cell}"
    if all(cell.error for cell in cells):
        said = re.sub(r"\s+", " ", cells[0].error).replace("|", "/")
        return f"| {family.name} | {family.models} | refused: {said} | refused | refused |"
    return f"| {family.name} | {family.models} | {' | '.join(shown)} |"


def table_of(rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *rows])


def written_names() -> list[str]:
    """The families in the page's table."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.matrix", description=__doc__)
    parser.add_argument("--only", default="", help="families whose name has this in it; then nothing is written")
    options = parser.parse_args()
    rows = []
    for family in FAMILIES:
        if options.only.lower() in family.name.lower():
            cells = asyncio.run(run_family(family))
            rows.append(row_of(family, cells))
            sys.stdout.write(f"{rows[-1]} {', '.join(f'{cell.seconds:.1f} s' for cell in cells)}\n")
            sys.stdout.flush()
    if not options.only:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table_of(rows)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
