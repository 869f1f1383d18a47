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

from gateway.cli.known_models import KNOWN, KnownModel
from gateway.cli.source_row import as_toml, row_of
from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs
from gateway.engine import compiler
from gateway.engine.adapter_merge import merged
from gateway.engine.compiler import CompileJob
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.fidelity import cosines
from gateway.engine.kind import kind_of
from gateway.engine.settings import LocalSettings
from gateway.engine.static_model import UNLIMITED_TOKENS, is_static
from gateway.errors import OperatorError
from gateway.metrics import Metrics
from gateway.testing.families import FAMILIES, Family

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
END = "<!-- end -->"
KNOWN_HEAD = ("model", "dimensions", "reads", "prompts")
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
    """The vectors of `encode`, without a prompt and with the query's; None if sentence-transformers cannot load the model.

    An adapter is merged first: peft, with which sentence-transformers would load it, is not installed.
    """
    try:
        with merged(folder) as whole:
            model = SentenceTransformer(str(whole), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}).float()
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
        if latency := getattr(local.devices[0].encoder, "latency", None):
            latency.is_made.wait()  # texts alone run through it
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


def family_row_of(family: Family, cells: list[Cell]) -> str:
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


def known_row_of(model: KnownModel) -> str:
    dimensions = f"{model.dimensions}; also {', '.join(map(str, model.matryoshka[1:]))}" if model.matryoshka else model.dimensions
    reads = "texts of any length" if model.max_tokens == UNLIMITED_TOKENS else f"{model.max_tokens} tokens"
    told = ", ".join(f"{name}: `{text}`" for name, text in model.prompts.items())
    return f"| `{model.hub_id}` | {dimensions} | {reads} | {told or ('in its files' if model.has_prompts else 'none')} |"


def table_of(head: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def known_rows() -> str:
    """A table of the most used models, and the row of each, ready to be copied."""
    table = table_of(KNOWN_HEAD, [known_row_of(model) for model in KNOWN.values()])
    rows = "\n".join(as_toml(row_of(hub_id, is_examined=False)[0]) for hub_id in KNOWN)
    return f"{table}\n\n```toml\n{rows}```"


def written(name: str) -> str:
    """The table of this name on the page: "families" or "rows"."""
    return PAGE.read_text(encoding="utf-8").partition(_begin(name))[2].partition(END)[0].strip()


def write(name: str, table: str) -> None:
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(_begin(name))
    _, end, after = rest.partition(END)
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def _begin(name: str) -> str:
    return f"<!-- {name}, written by `make models-matrix` -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.matrix", description=__doc__)
    parser.add_argument("--only", default="", help="families whose name has this in it; the rows of the others stay")
    options = parser.parse_args()
    write("rows", known_rows())
    rows = {_name_of(line): line for line in written("families").splitlines()[2:]}
    for family in FAMILIES:
        if options.only.lower() not in family.name.lower():
            continue
        cells = asyncio.run(run_family(family))
        rows[family.name] = family_row_of(family, cells)
        write("families", table_of(HEAD, [rows[each.name] for each in FAMILIES if each.name in rows]))
        sys.stdout.write(f"{rows[family.name]} {', '.join(f'{cell.seconds:.1f} s' for cell in cells)}\n")
        sys.stdout.flush()


def _name_of(row: str) -> str:
    return row.split("|")[1].strip()


if __name__ == "__main__":
    sys.exit(main())
