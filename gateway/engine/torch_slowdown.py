"""By what factor torch is slower than a compiled network on this machine: for the line that says that torch serves a model.

A network that OpenVINO cannot convert cannot be timed there. So a layer of BERT as wide as the model's own is timed, through both
runtimes: nearly all the time of a network of transformers is in such matrices.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, BertConfig, BertModel

from gateway.engine.fidelity import FAILURES
from gateway.engine.model_folder import transformer_folders
from gateway.engine.openvino_encoder import HINTS
from gateway.engine.openvino_import import CONVERSION_FAILURES, core, openvino
from gateway.errors import OperatorError

ROWS, LENGTH = 4, 32
MIN_RUNS, MAX_RUNS, MAX_SECONDS = 3, 30, 4.0  # of each of the two, in turns; the fastest counts, as others use the machine too
HEAD = 64  # numbers of a head where the model's own do not divide its width
UNTIMED: tuple[type[Exception], ...] = (
    OperatorError,
    OSError,
    *FAILURES,
    *CONVERSION_FAILURES,
)  # the line is worth no failed start
INNER = ("intermediate_size", "d_ff", "ffn_dim", "hidden_dim")  # transformers' names of the width inside a feed-forward layer


def slowdown_line(folder: Path, precision: str) -> str:
    """A sentence with the factor, beside a network compiled in `precision`; "" for a model without a network of transformers."""
    try:
        factor = _slowdown(*widths_of(folder), precision)
    except UNTIMED:
        return ""
    return f"a layer of its width takes torch {factor:.1f} times as long as compiled in {precision}"


def widths_of(folder: Path) -> tuple[int, int, int]:
    """The width of the model's layers, the width inside them, and the number of heads that divides it.

    Raises an error of FAILURES or OSError if the folder has no network of transformers.
    """
    config = AutoConfig.from_pretrained(transformer_folders(folder)[0], local_files_only=True).get_text_config()
    width = int(config.hidden_size)
    inner = next((int(value) for name in INNER if isinstance(value := getattr(config, name, None), int)), 4 * width)
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    if not heads or width % heads:
        heads = max(1, width // HEAD)
    return width, inner, heads if width % heads == 0 else 1


def _slowdown(width: int, inner: int, heads: int, precision: str) -> float:
    """The time of torch in float32 over that of OpenVINO in `precision`, on one core each: threads that wait for each other would
    measure what else runs on the machine.
    """
    config = BertConfig(vocab_size=512, hidden_size=width, intermediate_size=inner, num_attention_heads=heads, num_hidden_layers=1)
    layer = _Layer(BertModel(config, add_pooling_layer=False)).eval()
    ids = torch.ones((ROWS, LENGTH), dtype=torch.int64)
    with torch.inference_mode(), _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of shapes that it makes dynamic all the same
        network = openvino.convert_model(layer, example_input=ids)
        options = {"INFERENCE_PRECISION_HINT": HINTS[precision], "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
        request = core().compile_model(network, "CPU", options | {"ENABLE_CPU_PINNING": "NO"}).create_infer_request()
        by_torch, compiled = _fastest(lambda: layer(ids), lambda: request.infer({0: ids.numpy()}))
    return by_torch / compiled


class _Layer(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.network(ids)[0]
        return hidden


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fastest(*runs: Callable[[], object]) -> list[float]:
    """The seconds of each one's fastest run. The first, which allocates, does not count."""
    taken: list[list[float]] = [[] for _ in runs]
    began = time.perf_counter()
    for number in range(MAX_RUNS + 1):
        for run, seconds in zip(runs, taken, strict=True):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        if number >= MIN_RUNS and time.perf_counter() - began > MAX_SECONDS:
            break
    return [min(seconds[1:]) for seconds in taken]
