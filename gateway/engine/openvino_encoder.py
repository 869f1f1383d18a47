"""A compiled model on the CPU: one encoder a stream, each with its own infer request, and one request of all cores between them.

Streams of one core are the fastest way to do much, and the slowest to do little: a short text alone takes 5.3 ms on one of two
cores and 3.1 ms on both, where a full load would lose a fifth. So a small batch that finds no other running takes all the cores.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.engine import artifact
from gateway.engine.artifact import Manifest
from gateway.engine.encoder import EncoderInfo, OutOfMemory, Window, padded
from gateway.engine.quiet_openvino import openvino
from gateway.engine.shapes import Shapes

BATCH_TOKENS = 512  # measured: 256 to 2,048 are equally fast; a short query waits for one, so the shorter the better
LENGTH_STEP = 8
RUNTIME_CACHE_ENTRIES = "100"  # of compiled kernels a stream keeps: a second guard beside the ladder of shapes
ALONE_TOKENS = 128  # padded; a larger batch is one of many, or soon will be
ALONE_THREADS = 4  # more wait for each other longer than they compute: a layer of a short text is 20 microseconds' work
HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Short of memory, OpenVINO 2026.4 may fail in silence too and leave the former batch's output: each is overwritten once read.
STALE = np.finfo(np.float32).max
NO_MEMORY = ("Failed to allocate", "bad_alloc")  # in the text of a RuntimeError: OpenVINO has no error of its own for it


def native_precision() -> str:
    """What "auto" means here: bfloat16 where the CPU has it, else float32."""
    return "bfloat16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def load(place: Path, manifest: Manifest, *, threads: int, streams: int) -> list["OpenVINOEncoder"]:
    """One encoder a stream. The precision is always said: OpenVINO would choose bfloat16 by itself."""
    core, path = openvino.Core(), place / artifact.NETWORK
    options = {"INFERENCE_PRECISION_HINT": HINTS[manifest.precision], "CPU_RUNTIME_CACHE_CAPACITY": RUNTIME_CACHE_ENTRIES}
    apart = {"NUM_STREAMS": str(streams), **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {})}
    compiled = core.compile_model(path, "CPU", {**options, **apart})
    crew, num_threads = Crew(), min(threads or num_cores(), ALONE_THREADS)
    if max(1, (threads or num_cores()) // streams) < num_threads:
        together = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(num_threads), "ENABLE_CPU_PINNING": "NO"}
        crew.network = Network(core.compile_model(path, "CPU", {**options, **together}).create_infer_request())
    info = EncoderInfo(
        dimensions=manifest.dimensions,
        max_tokens=manifest.max_tokens,
        tokenizer_json=(place / artifact.TOKENIZER).read_text(encoding="utf-8"),
        prompts=manifest.prompts,
        default_prompt=manifest.default_prompt,
        is_normalized=manifest.is_normalized,
        runtime="openvino",
        device="cpu",
        precision=manifest.precision,
        default_max_batch_tokens=BATCH_TOKENS,
        leaves_prompt_out=manifest.leaves_prompt_out,
        shapes=Shapes(length_step=LENGTH_STEP, is_ladder=True, max_length=manifest.max_tokens),
    )
    return [OpenVINOEncoder(Network(compiled.create_infer_request()), crew, info, manifest) for _ in range(streams)]


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Network:
    """One infer request of a compiled model, for one thread at a time."""

    def __init__(self, request: openvino.InferRequest) -> None:
        self.request = request

    def rows(self, arrays: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Raises OutOfMemory, also where it was not said and only the former rows are there again."""
        try:
            output = self.request.infer(dict(enumerate(arrays)), share_outputs=True)[0]  # inputs are copied in, this is a view
        except RuntimeError as error:
            if any(sign in str(error) for sign in NO_MEMORY):
                raise OutOfMemory from None
            raise
        if len(output) != len(arrays[0]) or output[0, 0] == STALE:
            raise OutOfMemory
        rows = np.array(output, dtype=np.float32)
        output.fill(STALE)
        return rows


class Crew:
    """Knows how many of a model's encoders are at work. `network` runs on the cores of all; None where a stream has enough."""

    def __init__(self) -> None:
        self.network: Network | None = None
        self.num_working = 0
        self.lock = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Whether nobody else is. At most one of those inside was told so."""
        with self.lock:
            is_alone = self.num_working == 0
            self.num_working += 1
        try:
            yield is_alone
        finally:
            with self.lock:
                self.num_working -= 1


class OpenVINOEncoder:
    """Lengths are padded up to the ladder; its rows are the batcher's to keep to, and any number works."""

    def __init__(self, network: Network, crew: Crew, info: EncoderInfo, manifest: Manifest) -> None:
        self.info = info
        self.network = network
        self.crew = crew
        self.pad_id = manifest.pad_id

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        length = self.info.shapes.length(max(map(len, windows)))
        arrays = padded(windows, length=length, pad_id=self.pad_id, leaves_prompt_out=self.info.leaves_prompt_out)
        with self.crew.working() as is_alone:
            is_small = arrays[0].size <= ALONE_TOKENS
            network = self.crew.network if is_alone and is_small and self.crew.network is not None else self.network
            return network.rows(arrays)
