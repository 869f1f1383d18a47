"""The frontier of int8, in process: how much of the network stays out of 8 bits, against what is kept.

Speed is CPU time of one thread for the same 1,024 sentences, so a machine that is busy does not change it much.
"""

import itertools
import time
from typing import Any

import numpy as np

from benchmarks import corpus
from benchmarks.machine import machine, place, programs, versions
from benchmarks.precisions import compared
from benchmarks.recall import Rows
from benchmarks.table import aligned
from gateway.engine.calibration_texts import built_in_texts
from gateway.engine.encoder import Window, pad
from gateway.engine.openvino_encoder import HINTS, native_precision
from gateway.engine.openvino_import import core, openvino
from gateway.engine.quantizer import quantize
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_loader import load_encoder

SHARES = (0.0, 0.06, 0.12, 0.17, 0.23, 0.34)
ROWS, TIMED = 16, 1024
COLUMNS = ("out of 8 bits, at most", "x", "nearest kept", "mean cosine", "worst", "Spearman", "nDCG@10")


def main() -> None:
    reference = load_encoder(corpus.model_folder(), device="cpu", precision="float32", threads=0)
    network, tokenizer = reference.info.network, Tokenizer(reference.info.tokenizer_json)
    model = reference.trace(openvino)
    texts = list(itertools.chain.from_iterable(corpus.corpus().requests))

    def windows(chosen: list[str]) -> list[Window]:
        room = network.max_tokens - tokenizer.num_special
        return [
            Window(tokenizer.with_special(each.ids[:room]))
            for each in tokenizer.fast.encode_batch(chosen, add_special_tokens=False)
        ]

    calibrating, judging = windows(built_in_texts().calibrating), windows(texts)
    expected, _ = run(model, judging, network, "float32")
    native, usual = run(model, judging, network, native_precision())
    rows = [("all: " + native_precision(), "1.00", *cells(native, expected))]
    for share in SHARES:
        made = quantize(model, calibrating, network=network, max_left=share)
        found, took = run(made, judging, network, native_precision())
        rows.append((f"{share:.0%}", f"{usual / took:.2f}", *cells(found, expected)))
        print(*rows[-1], flush=True)
    about: dict[str, Any] = {"machine": machine(), "versions": versions()}
    print(f"\n{place(about)}\n{programs(about)}\n\n{aligned([COLUMNS, *rows])}")


def run(model: Any, windows: list[Window], network: Any, precision: str) -> tuple[Rows, float]:
    """The vectors, and the CPU seconds of the first TIMED texts' second run."""
    options = {"INFERENCE_PRECISION_HINT": HINTS[precision], "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
    request = core().compile_model(model, "CPU", options).create_infer_request()
    order = sorted(range(len(windows)), key=lambda index: len(windows[index]))
    batches = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
    rows = np.empty((len(windows), network.dimensions), dtype=np.float32)

    def embed(indices: list[int]) -> None:
        chosen = [windows[index] for index in indices]
        length = -(-max(map(len, chosen)) // 8) * 8
        inputs = pad(chosen, length=min(length, network.max_tokens), network=network)
        rows[indices] = request.infer(dict(enumerate(inputs)))[0]

    for batch in batches:
        embed(batch)
    timed = batches[:: max(1, len(windows) // TIMED)]
    began = time.process_time()
    for batch in timed:
        embed(batch)
    return rows, time.process_time() - began


def cells(rows: Rows, expected: Rows) -> tuple[str, ...]:
    figures = compared(rows, expected)
    return (
        f"{figures['kept']:.1%}", f"{figures['mean_cosine']:.5f}", f"{figures['worst_cosine']:.4f}",
        f"{figures['spearman']:.5f}", f"{figures['ndcg']:.4f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
