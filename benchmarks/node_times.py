"""Where a batch's time goes inside the network, by kind of node: `python -m benchmarks.node_times FOLDER`.

FOLDER is that of a compiled model: the data directory's `models/…`. One stream of one thread runs batches of some 500 tokens, and
OpenVINO's counters (PERF_COUNT) say how long each node took; the fastest run counts.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.table import aligned
from gateway.engine import artifact
from gateway.engine.encoder import Window, pad
from gateway.engine.openvino_encoder import options
from gateway.engine.openvino_import import core, openvino

SHAPES = ((16, 32), (12, 40), (4, 128), (2, 256))
RUNS = 12
KINDS = {
    "FullyConnected": "matrix products, GELU among them",
    "Subgraph": "attention",
    "MVN": "layer norms",
    "MulAdd": "layer norms",
    "Add": "residuals",
    "Transpose": "transposes for attention",
    "Reorder": "conversions of precision",
    "Convert": "conversions of precision",
    "Gather": "embeddings",
}


def shares(folder: Path, num_rows: int, length: int) -> dict[str, float]:
    """The shares of kinds of nodes in the fastest run, and its microseconds a token under ""."""
    manifest = artifact.read(folder)
    if manifest is None:
        raise SystemExit(f"{folder} is no compiled model")
    how = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1", "PERF_COUNT": "YES"}
    request = core().compile_model(folder / artifact.NETWORK, "CPU", options(manifest) | how).create_infer_request()
    ids = np.random.default_rng(0).integers(0, 100, (num_rows, length)).tolist()
    arrays = pad([Window(row) for row in ids], length=length, network=manifest.network)
    means, fastest = [Counter[str]()], Counter[str]()
    for number in range(1, RUNS + 1):  # OpenVINO tells the means of all runs so far
        request.infer(dict(enumerate(arrays)))
        means.append(counted(request))
        taken = Counter({kind: number * mean - (number - 1) * means[-2][kind] for kind, mean in means[-1].items()})
        if number > 1 and (not fastest or taken.total() < fastest.total()):
            fastest = taken
    whole = fastest.total()
    return {"": whole / (num_rows * length)} | {kind: share / whole for kind, share in fastest.items()}


def counted(request: openvino.InferRequest) -> Counter[str]:
    """Microseconds by kind."""
    times: Counter[str] = Counter()
    for node in request.profiling_info:
        if node.status == node.Status.EXECUTED:
            times[KINDS.get(node.node_type, "all others")] += round(1e6 * node.real_time.total_seconds())
    return times


def main() -> None:
    columns = {f"{rows} x {length}": shares(Path(sys.argv[1]), rows, length) for rows, length in SHAPES}
    rows = [("", *columns), ("us a token", *(f"{column['']:.1f}" for column in columns.values()))]
    kinds = dict.fromkeys([*KINDS.values(), "all others"])
    rows += [(kind, *(f"{100 * column.get(kind, 0):.1f} %" for column in columns.values())) for kind in kinds]
    print(aligned(rows))


if __name__ == "__main__":
    main()
