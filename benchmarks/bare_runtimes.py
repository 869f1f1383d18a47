"""Without a gateway, on all cores: `encode`, OpenVINO and ONNX Runtime, one text after the other, and products of matrices.

Of OpenVINO and ONNX Runtime the network's run is timed, on token ids of the length they have, without tokenising. ONNX Runtime is
measured where it is installed: it is no part of the extra `bench`.
"""

import contextlib
import importlib.util
import io
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.alone import KINDS, texts_of
from benchmarks.corpus import MODEL, read
from benchmarks.worker import Round, answer
from gateway.engine import artifact
from gateway.engine.artifact import ArtifactStore
from gateway.engine.encoder import Window
from gateway.engine.identity import identity_of
from gateway.engine.openvino_encoder import options
from gateway.engine.openvino_import import core
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_encoder import TorchEncoder
from gateway.testing.folder import folder_of

SIZES = (512, 1024, 2048, 4096)
MATRIX_RUNS = 5
GEMM = {"auto": torch.bfloat16, "float32": torch.float32}
NO_ONNX = "onnxruntime is not installed: `pip install onnxruntime onnx` measures it too"

Run = Callable[[NDArray[np.int64], NDArray[np.int64]], object]


def openvino_run(store: ArtifactStore, precision: str) -> Run:
    """Of a network that takes any shape, as one text after the other needs it."""
    path = store.path(identity_of(folder_of(MODEL, download=False)), precision)
    manifest = artifact.read(path)
    assert manifest is not None
    together = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(os.cpu_count() or 1), "ENABLE_CPU_PINNING": "NO"}
    request = core().compile_model(path / artifact.NETWORK, "CPU", options(manifest) | together).create_infer_request()
    return lambda ids, mask: request.infer({0: ids, 1: mask}, share_outputs=True)


def onnx_run(reference: TorchEncoder, folder: Path) -> Run:
    import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]

    file = folder / "model.onnx"
    example = reference.tensors([Window([5] * 16), Window([5] * 9)])
    axes = {name: {0: "rows", 1: "length"} for name in ("input_ids", "attention_mask")}
    with torch.inference_mode(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(reference.pipeline, example, str(file), input_names=[*axes], dynamic_axes=axes, dynamo=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})


def run_pair(run: Run, pair: tuple[NDArray[np.int64], NDArray[np.int64]]) -> object:
    return run(*pair)


def timed(run: Callable[[Any], object], inputs: Any, seconds: float) -> dict[str, float]:
    """In turn, for so many seconds."""
    ends = time.perf_counter() + seconds
    taken: list[float] = []
    while not taken or time.perf_counter() < ends:
        given = next(inputs)
        began = time.perf_counter()
        run(given)
        taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    return {"p50_ms": statistics.median(taken), "p99_ms": taken[math.ceil(0.99 * len(taken)) - 1]}


def mflop(dtype: torch.dtype) -> dict[str, float]:
    """The best rate of square products, in MFLOP a second."""
    best = 0.0
    for size in SIZES:
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        for _ in range(MATRIX_RUNS):
            began = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2e-6 * size**3 / (time.perf_counter() - began))
    return {"mflop": best}


def main() -> None:
    file = Path(sys.argv[1])
    texts = texts_of(read(file))
    reference = TorchEncoder(folder_of(MODEL, download=False), device="cpu", precision="float32", threads=0)
    tokenizer = Tokenizer(reference.info.tokenizer_json)
    store = ArtifactStore(file.parent / "data" / "models")  # where the servers keep what they compiled
    runs = {"openvino32": openvino_run(store, "float32")}
    with contextlib.suppress(AssertionError):
        runs["openvino"] = openvino_run(store, "bfloat16")
    note = NO_ONNX
    if importlib.util.find_spec("onnxruntime") is not None:
        runs["onnx"] = onnx_run(reference, file.parent)
        note = "ONNX Runtime is bare, on all cores"
    rounds: dict[str, Round] = {f"gemm_{name}": lambda _, dtype=dtype: mflop(dtype) for name, dtype in GEMM.items()}  # type: ignore[misc]
    encode = partial(reference.model.encode, show_progress_bar=False)
    for kind in KINDS:
        windows = [tokenizer.with_special(tokenizer.fast.encode(text, add_special_tokens=False).ids) for text in texts[kind]]
        arrays = [np.array([ids], dtype=np.int64) for ids in windows]
        pairs = [(ids, np.ones_like(ids)) for ids in arrays]
        for name, run in runs.items():
            rounds[f"{name}_{kind}"] = partial(timed, partial(run_pair, run), cycle(pairs))
        rounds[f"encode_{kind}"] = partial(timed, encode, cycle([text] for text in texts[kind]))
    answer(rounds, runtimes=["encode", *runs], gemm=[*GEMM], note=note)


if __name__ == "__main__":
    main()
