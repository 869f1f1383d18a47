"""Graphs of small batches. A function stands in for CUDA's capture here: it computes from the captured tensors, as a graph does."""

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from gateway.engine.cuda_graphs import LENGTHS, ROWS, CapturedShapes
from gateway.engine.encoder import Window
from gateway.engine.fidelity import cosines
from gateway.engine.torch_encoder import TorchEncoder
from gateway.tests.engine.test_torch_encoder import has_cuda, minilm

WINDOWS = [Window([2 + number % 7 for number in range(length)]) for length in (3, 9, 20, 16, 1, 30)]
FITTING = [length for length in LENGTHS if length <= 32]  # the small model reads 32 tokens


class Recorder:
    """Captures by keeping the function; a replay runs it, and writes into the tensor it wrote to at first."""

    def __init__(self, *, spoil=0.0):
        self.num_captured = self.num_replayed = 0
        self.spoil = spoil

    def __call__(self, run):
        self.num_captured += 1
        output = run()

        def replay():
            self.num_replayed += 1
            output.copy_(run())
            output[:, 0] += self.spoil

        return output, replay


def refuse(_):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.fixture(scope="module")
def encoder(small_model):
    return TorchEncoder(small_model, device="cpu", precision="float32", threads=0)


def test_a_small_batch_runs_as_the_smallest_graph_it_fits_into_and_gives_the_same_vectors(encoder):
    recorder = Recorder()
    encoder.capture_graphs(recorder)
    assert recorder.num_captured == len(ROWS) * len(FITTING)
    for windows in (WINDOWS[:1], WINDOWS[2:5], WINDOWS):
        recorder.num_replayed = 0
        rows = encoder.embed(windows)
        assert recorder.num_replayed == 1
        graphs, encoder.graphs = encoder.graphs, None
        np.testing.assert_allclose(rows, encoder.embed(windows), atol=1e-5)
        encoder.graphs = graphs


def test_rows_stay_when_the_graph_runs_again(encoder):
    """A graph writes to the same place each time."""
    encoder.capture_graphs(Recorder())
    first = encoder.embed(WINDOWS[:1])
    kept = first.copy()
    encoder.embed(WINDOWS[1:2])
    np.testing.assert_array_equal(first, kept)


def test_a_larger_batch_runs_without_a_graph(encoder):
    recorder = Recorder()
    encoder.capture_graphs(recorder)
    recorder.num_replayed = 0
    encoder.embed(WINDOWS[:1] * (ROWS[-1] + 1))
    assert encoder.graphs.run([Window([3] * (FITTING[-1] + 1))]) is None
    assert recorder.num_replayed == 0


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (refuse, "RuntimeError: operation not permitted when stream is capturing"),
        (Recorder(spoil=9.0), "UnequalReplay: 1 rows of 16 tokens: the worst cosine is"),
        (Recorder(spoil=float("nan")), "UnequalReplay: 1 rows of 16 tokens: the worst cosine is -1"),
    ],
    ids=["that fails", "of other vectors", "of none"],
)
def test_a_capture_is_given_up_by_name(encoder, capture, reason):
    with capture_logs() as lines:
        encoder.capture_graphs(capture)
    [line] = lines
    assert line["event"] == "cuda_graphs_off"
    assert line["reason"].startswith(reason)
    assert encoder.graphs is None
    assert np.isfinite(encoder.embed(WINDOWS[:1])).all()


def test_no_shape_is_longer_than_the_model_reads(encoder):
    graphs = CapturedShapes(encoder.pipeline, encoder.tensors, pad_id=0, capture=Recorder())
    graphs.capture_all(WINDOWS, max_tokens=20, device="cpu")
    assert {shape.length for shape in graphs.shapes} == {16}


@has_cuda
def test_cuda_captures_them_all():
    encoder = minilm(device="cuda:0", precision="float16")
    assert encoder.graphs is not None
    assert len(encoder.graphs.shapes) == len(ROWS) * len(LENGTHS)
    rows = encoder.embed(WINDOWS[:3])
    encoder.graphs = None
    assert cosines(rows, encoder.embed(WINDOWS[:3])).min() >= 0.9999
    torch.cuda.synchronize()
