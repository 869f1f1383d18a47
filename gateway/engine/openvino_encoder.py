"""A compiled model on the CPU: one encoder a stream, each with its own infer request, and a shared request that uses all cores.

Streams of one core give the highest throughput but the highest latency. On two cores a short text alone takes 5.3 ms in a stream
and 2.3 ms on both (latency_network.py), which would cost a fifth of the throughput under full load. So one text, or a small batch,
uses all cores only if no other batch is running.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.cpus import cpu_flags, num_cpus, num_visible
from gateway.engine import artifact
from gateway.engine.artifact import Manifest
from gateway.engine.encoder import CPU_LOGITS, EncoderInfo, Window, max_batch_tokens, pad
from gateway.engine.int8 import is_int8
from gateway.engine.latency_network import LENGTHS, BucketedNetwork, LatencyNetwork, build_bucketed, refuse_other_rows
from gateway.engine.mapped_weights import MappedWeights
from gateway.engine.model_size import MAX_BRANCHED_BYTES, packed_bytes
from gateway.engine.network import Network
from gateway.engine.openvino_import import core
from gateway.engine.shape_buckets import Shapes

BATCH_TOKENS = 512  # measured: 256 to 2,048 are equally fast; a short query may wait for one batch, so the shorter the better
LENGTH_STEP = 8
RUNTIME_CACHE_ENTRIES = "100"  # compiled kernels that a stream caches: a second bound besides the ladder of shapes
ALONE_TOKENS = 128  # padded, of several rows; a larger batch is one of many, or soon will be
PACKED_TOKENS = 128  # of several rows: from 64 on, OpenVINO packs some weights in float32 a second time
ALONE_THREADS = 4  # more threads wait for each other longer than they compute: a layer of a short text takes 20 microseconds
HINTS = {"float32": "f32", "bfloat16": "bf16"}
AMX = "amx_bf16"  # the CPU multiplies bfloat16 matrices in tiles
SHORT_TOKENS = 512  # up to it, attention as separate nodes is faster where the CPU has AMX, and its scores are small


def native_precision() -> str:
    """The precision that "auto" means: bfloat16 if the CPU supports it, else float32."""
    return "bfloat16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def load(  # noqa: PLR0913 - the last is for a single stream
    name: str, path: Path, manifest: Manifest, *, threads: int, streams: int, encoders: int = 0
) -> list["OpenVINOEncoder"]:
    """Loads one encoder a stream, or as many as `encoders` says. They share a latency network that is not started yet.

    Encoders beyond the streams wait for each other, each with its batch made ready.
    """
    weights = MappedWeights(path / artifact.WEIGHTS)
    model = core().read_model((path / artifact.NETWORK).read_bytes(), weights.tensor)  # once: all networks share the file's memory
    compiled = core().compile_model(model, "CPU", options(manifest) | stream_options(threads=threads, streams=streams))
    info = EncoderInfo(
        network=manifest.network,
        tokenizer_json=(path / artifact.TOKENIZER).read_text(encoding="utf-8"),
        runtime="openvino",
        device="cpu",
        precision=manifest.precision,
        default_max_batch_tokens=max_batch_tokens(manifest.network, BATCH_TOKENS, max_logits=CPU_LOGITS),
        shapes=Shapes(length_step=LENGTH_STEP, is_ladder=True, max_length=manifest.network.max_tokens),
        calibration=manifest.calibration,
    )
    is_small = packed_bytes(path, manifest) <= MAX_BRANCHED_BYTES
    lengths = [length for length in LENGTHS if is_small and length <= manifest.network.max_tokens]
    num_threads = min(threads or num_cpus(), ALONE_THREADS)

    def of_all_cores() -> BucketedNetwork:
        together = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(num_threads), "ENABLE_CPU_PINNING": "NO"}
        bucketed = core().compile_model(build_bucketed(model, lengths), "CPU", options(manifest) | together)
        network = BucketedNetwork(bucketed.create_infer_request(), weights, lengths)
        longest = min(PACKED_TOKENS // 2, manifest.network.max_tokens)
        shapes = [*((1, length) for length in lengths), (2, LENGTH_STEP), (2, longest)]  # the first run of each allocates
        refuse_other_rows(network, Network(compiled.create_infer_request(), weights), manifest, shapes)
        return network

    has_more_together = max(1, (threads or num_cpus()) // streams) < num_threads
    latency = LatencyNetwork(of_all_cores if has_more_together else None, name=name, afterwards=weights.release)
    return [OpenVINOEncoder(Network(compiled.create_infer_request(), weights), latency, info) for _ in range(encoders or streams)]


def options(manifest: Manifest) -> dict[str, str]:
    """Compile options. The precision is always given, as OpenVINO would choose bfloat16 by itself.

    What an 8-bit network does not compute in 8 bits, it computes as the CPU does best. OpenVINO's snippets fuse attention into one
    node, which on AMX takes twice the time of its parts for lengths that are no multiple of 16.
    """
    precision = native_precision() if is_int8(manifest.precision) else manifest.precision
    takes_apart = precision == "bfloat16" and manifest.network.max_tokens <= SHORT_TOKENS and AMX in cpu_flags()
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "CPU_RUNTIME_CACHE_CAPACITY": RUNTIME_CACHE_ENTRIES,
        **({"SNIPPETS_MODE": "DISABLE"} if takes_apart else {}),
    }


def stream_options(*, threads: int, streams: int) -> dict[str, str]:
    """Compile options. OpenVINO binds a stream's threads to CPUs, counted from the first: right for a process that uses them all.

    Several that use a part each, as containers with a quota do, would be bound to the same few.
    """
    is_part = 0 < threads < num_visible()
    return {
        "NUM_STREAMS": str(streams),
        **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {}),
        **({"ENABLE_CPU_PINNING": "NO"} if is_part else {}),
    }


class OpenVINOEncoder:
    """The Encoder of one stream. Pads lengths to the ladder of shapes; any number of rows works, so the batcher limits those."""

    def __init__(self, network: Network, latency: LatencyNetwork, info: EncoderInfo) -> None:
        self.info = info
        self.network = network
        self.latency = latency

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        length = self.info.shapes.length(max(map(len, windows)))
        with self.latency.working() as is_alone:
            network, together = self.network, self.latency.network
            is_small = len(windows) == 1 or len(windows) * length <= ALONE_TOKENS
            if together is not None and is_alone and is_small:
                network, length = together, together.length(len(windows), length)
            return network.rows(pad(windows, length=length, network=self.info.network))
