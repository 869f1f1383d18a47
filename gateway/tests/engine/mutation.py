"""Mutated model folders: each is refused, or served with the vectors of sentence-transformers' own `encode` on that very folder.

`python -m gateway.tests.engine.mutation --number 500` tries as many, from a seed, after all the originals have been served from the
same shelf; it prints each mutation that is served with other vectors, and ends with 1 if there was one. The network is compiled in
this process rather than in a child, so that a mutation costs a second or two; all else is the gateway's own road.
"""

import argparse
import asyncio
import contextlib
import io
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer

from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs
from gateway.engine import compiler
from gateway.engine.artifact import ArtifactStore
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.fidelity import cosines
from gateway.engine.identity import identity_of
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import local_folder
from gateway.errors import GatewayError, OperatorError
from gateway.metrics import Metrics
from gateway.testing import model_folders as folders
from gateway.tests.engine.mutations import Bases, Mutant, mutant

TEXTS = ["Hello, world", "a", "The capital of France is Paris. " * 9, "Größe 你好 مرحبا 🙂", "def area(r): return 3.14159 * r ** 2"]
ATOL = 1e-5  # of a vector's length, in every component
MIN_COSINE = 0.999  # where sentence-transformers itself computes in half precision


def expected_of(folder: Path) -> tuple[np.ndarray, bool] | Exception:
    """What `encode` gives, each text alone, and whether it computed in float32; or what it raises."""
    try:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        vectors = model.encode(TEXTS, batch_size=1, show_progress_bar=False, convert_to_tensor=True)
        return vectors.float().cpu().numpy(), vectors.dtype == torch.float32
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no vector
        return error


def compile_here(folder: Path, artifacts: ArtifactStore) -> None:
    """What `gateway.engine.compiler` does in its child, where the shelf has it not."""
    local_folder(LocalSettings(source=str(folder)))
    if artifacts.find(identity_of(folder), "float32") is None:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                compiler.run(compiler.CompileJob(str(folder), str(folder), "float32", str(artifacts.folder)))
            except OperatorError:
                raise
            except Exception as error:
                raise OperatorError(f"{type(error).__name__}: {error}") from error


async def served(folder: Path, data: Path, runtime: str) -> np.ndarray:
    """The vectors of TEXTS in one request. Raises OperatorError or GatewayError."""
    engine = EngineSettings(warmup_seconds=0)
    context = BackendContext("m", LimitSettings(), engine, Metrics().of_model("m"), data)
    local = LocalEmbedder(LocalSettings(source=str(folder), download=False, runtime=runtime, precision="float32"), context)
    try:
        if runtime == "openvino":
            compile_here(folder, local.artifacts)
        await local.start()
        inputs = Inputs(TEXTS, is_array=True, caller="a", deadline=time.monotonic() + 60, normalize=False, long_input="end")
        return (await local.embed(await local.prepare(inputs))).rows
    finally:
        await local.close()


def fault(rows: np.ndarray, expected: tuple[np.ndarray, bool] | Exception) -> str:
    """Why the rows are not what `encode` gives; empty where they are."""
    if isinstance(expected, Exception):
        return f"served, while sentence-transformers raises {type(expected).__name__}: {str(expected)[:200]}"
    vectors, is_float32 = expected
    if rows.shape != vectors.shape:
        return f"served in shape {rows.shape}, not {vectors.shape}"
    worst = float(cosines(rows, vectors).min())
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    off = float((np.abs(rows - vectors) / np.maximum(lengths, 1e-12)).max())
    is_equal = off <= ATOL if is_float32 else worst >= MIN_COSINE
    return "" if is_equal else f"served with a worst cosine of {worst:.6f}, {off:.2g} of the length off"


async def tried(each: Mutant, data: Path, runtime: str) -> tuple[str, str]:
    """Whether it is "served", "refused" or "wrong", and why."""
    try:
        rows = await served(each.folder, data, runtime)
    except (OperatorError, GatewayError) as error:
        return ("wrong", f"refused: {error}") if each.is_harmless else ("refused", str(error))
    except Exception as error:  # noqa: BLE001 - nothing but those two may leave the gateway
        return "wrong", f"raised {type(error).__name__}: {error}"
    how = fault(rows, expected_of(each.folder))
    return ("wrong", how) if how else ("served", "")


def make_bases(under: Path, names: tuple[str, ...] = tuple(folders.BASES)) -> Bases:
    return Bases({name: folders.base(name, under) for name in names})


async def serve_originals(bases: Bases, data: Path) -> list[str]:
    """All of them from one shelf; the names of those that are not what `encode` gives."""
    outcomes = {
        name: await tried(Mutant(name, "original", folder, True), data, "openvino") for name, folder in bases.folders.items()
    }
    return [f"{name}: {why}" for name, (outcome, why) in outcomes.items() if outcome != "served"]


def quiet() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


async def run(number: int, seed: int, every: int, under: Path) -> int:
    bases, data = make_bases(under / "bases"), under / "data"
    wrong = await serve_originals(bases, data)
    counts, started = Counter[str](), time.monotonic()
    for one in range(seed, seed + number):
        each = mutant(bases, one, under)
        runtime = "openvino" if one % every == 0 else "torch"
        outcome, why = await tried(each, data, runtime)
        counts[f"{outcome} ({runtime})"] += 1
        counts["harmless"] += each.is_harmless
        if outcome == "wrong":
            wrong.append(f"{one} {runtime} {each.base}: {each.what}: {why}")
            sys.stdout.write(wrong[-1] + "\n")
        sys.stderr.write(f"{one} {runtime} {each.base}: {each.what[:150]}: {outcome} {why[:150]}\n")
        shutil.rmtree(each.folder)
    sys.stdout.write(f"{number} mutations in {time.monotonic() - started:.0f} s: {dict(counts)}\n{len(wrong)} wrong\n")
    sys.stdout.write("".join(f"{each}\n" for each in wrong))
    return int(bool(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile-every", type=int, default=4, help="the others run through torch")
    options = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory(prefix="mutation-") as under:
        sys.exit(asyncio.run(run(options.number, options.seed, options.compile_every, Path(under))))


if __name__ == "__main__":
    main()
