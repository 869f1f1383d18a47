"""CUDA graphs of small batches: a network's kernels, recorded once for each usual shape and launched by one call.

A text alone takes a GPU some hundred microseconds, and the host several times as long to launch its kernels one by one. A graph has
fixed shapes and addresses: inputs are copied into its own, a smaller batch is filled up, and the rows are copied out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gateway.engine.encoder import Window
from gateway.engine.fidelity import cosines
from gateway.log import get_logger

ROWS = (1, 2, 4, 8)
LENGTHS = (16, 32, 64, 128)
WARM_UPS = 2  # outside of the graph: the first runs allocate and choose kernels
MAX_CAPTURE_SECONDS = 10.0
MIN_COSINE = 0.9999  # to the same batch without a graph: the same kernels, in the same precision

Tensors = tuple[torch.Tensor, ...]
Replay = Callable[[], None]
Capture = Callable[[Callable[[], torch.Tensor]], tuple[torch.Tensor, Replay]]

log = get_logger()


class UnequalReplay(RuntimeError):
    """A captured batch gives other vectors than the same batch without a graph."""


def capture_graph(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Replay]:
    """Records what `run` launches. Returns the tensor it writes to, and a function that launches it again."""
    beside, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(current)
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            run()
    current.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other models go on serving in their threads
        output = run()
    return output, graph.replay


@dataclass(frozen=True, slots=True)
class CapturedShape:
    """A graph for batches of exactly this shape. `inputs` and `output` are its own tensors."""

    num_rows: int
    length: int
    inputs: Tensors
    output: torch.Tensor
    replay: Replay

    def run(self, tensors: Tensors, num_rows: int) -> torch.Tensor:
        """The first `num_rows` rows for these inputs. All of it is ordered by the current stream."""
        for own, given in zip(self.inputs, tensors, strict=True):
            own.copy_(given, non_blocking=True)
        self.replay()
        return self.output[:num_rows].clone()


class CapturedShapes:
    """The graphs of a network. `tensors` pads windows to a number of columns, `network` computes rows from what it gives.

    Where a graph cannot be captured, or gives other vectors than the network itself, there is none at all, and the log says why.
    """

    def __init__(
        self,
        network: Callable[..., torch.Tensor],
        tensors: Callable[[Sequence[Window], int], Tensors],
        *,
        pad_id: int,
        capture: Capture = capture_graph,
    ) -> None:
        self.network, self.tensors, self.capture = network, tensors, capture
        self.filler = Window([pad_id])
        self.shapes: list[CapturedShape] = []

    def capture_all(self, probes: Sequence[Window], *, max_tokens: int, device: str) -> None:
        """Captures the usual shapes, smallest first, while there is time, and checks each by windows cut from `probes`."""
        deadline = time.monotonic() + MAX_CAPTURE_SECONDS
        try:
            with torch.inference_mode():
                for length in (length for length in LENGTHS if length <= max_tokens):
                    for num_rows in ROWS:
                        if time.monotonic() < deadline:
                            self.shapes.append(self.captured(_cut(probes, num_rows, length), length))
        except Exception as error:  # noqa: BLE001 - whatever CUDA or a network raises, it serves without graphs
            self.shapes.clear()
            reason = (str(error).splitlines() or [""])[0]
            log.warning("cuda_graphs_off", device=device, reason=f"{type(error).__name__}: {reason}")
        else:
            log.info("cuda_graphs", device=device, shapes=len(self.shapes))

    def captured(self, windows: Sequence[Window], length: int) -> CapturedShape:
        """Raises UnequalReplay unless it gives what the network gives, for other inputs than those it was captured with too."""
        inputs = tuple(tensor.clone() for tensor in self.tensors([self.filler] * len(windows), length))
        output, replay = self.capture(lambda: self.network(*inputs))
        shape = CapturedShape(len(windows), length, inputs, output, replay)
        tensors = self.tensors(windows, length)
        rows, expected = shape.run(tensors, len(windows)), self.network(*tensors)
        worst = float(cosines(rows.float().cpu().numpy(), expected.float().cpu().numpy()).min())
        if not worst >= MIN_COSINE:
            raise UnequalReplay(f"{len(windows)} rows of {length} tokens: the worst cosine is {worst:.6f}")
        return shape

    def run(self, windows: Sequence[Window]) -> torch.Tensor | None:
        """The rows of a batch, by the smallest graph that it fits into; None if there is none."""
        longest = max(map(len, windows))
        for shape in self.shapes:
            if longest <= shape.length and len(windows) <= shape.num_rows:
                filled = [*windows, *[self.filler] * (shape.num_rows - len(windows))]
                return shape.run(self.tensors(filled, shape.length), len(windows))
        return None


def _cut(probes: Sequence[Window], num_rows: int, length: int) -> list[Window]:
    """As many windows of different lengths, the first as long as it may be."""
    chosen = [probes[number % len(probes)].token_ids for number in range(num_rows)]
    longest = [token for ids in chosen for token in ids][:length]
    return [Window(longest), *(Window(ids[: max(1, length - number)]) for number, ids in enumerate(chosen[1:], start=1))]
