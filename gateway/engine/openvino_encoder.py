"""A compiled model on the CPU: one encoder a stream, each with its own infer request, all of one network."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.engine import artifact
from gateway.engine.artifact import Manifest
from gateway.engine.encoder import EncoderInfo, padded
from gateway.engine.quiet_openvino import openvino
from gateway.engine.shapes import Shapes

BATCH_TOKENS = 512  # measured: 256 to 2,048 are equally fast; a short query waits for one, so the shorter the better
LENGTH_STEP = 8
RUNTIME_CACHE_ENTRIES = "100"  # of compiled kernels a stream keeps: a second guard beside the ladder of shapes
HINTS = {"float32": "f32", "bfloat16": "bf16"}


def native_precision() -> str:
    """What "auto" means here: bfloat16 where the CPU has it, else float32."""
    return "bfloat16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def load(place: Path, manifest: Manifest, *, threads: int, streams: int) -> list["OpenVINOEncoder"]:
    """One encoder a stream. The precision is always said: OpenVINO would choose bfloat16 by itself."""
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[manifest.precision],
        "NUM_STREAMS": str(streams),
        "CPU_RUNTIME_CACHE_CAPACITY": RUNTIME_CACHE_ENTRIES,
        **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {}),
    }
    compiled = openvino.Core().compile_model(place / artifact.NETWORK, "CPU", options)
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
        shapes=Shapes(length_step=LENGTH_STEP, is_ladder=True, max_length=manifest.max_tokens),
    )
    return [OpenVINOEncoder(compiled, info, manifest) for _ in range(streams)]


class OpenVINOEncoder:
    """Lengths are padded up to the ladder; its rows are the batcher's to keep to, and any number works."""

    def __init__(self, compiled: openvino.CompiledModel, info: EncoderInfo, manifest: Manifest) -> None:
        self.info = info
        self.request = compiled.create_infer_request()
        self.pad_id = manifest.pad_id

    def embed(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        length = self.info.shapes.length(max(map(len, token_ids)))
        input_ids, attention_mask = padded(token_ids, length=length, pad_id=self.pad_id)
        result = self.request.infer({0: input_ids, 1: attention_mask})  # copied in: the request outlives these arrays
        return np.array(result[0], dtype=np.float32)
