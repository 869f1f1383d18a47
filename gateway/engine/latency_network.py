"""A latency network: a second compiled network that uses all cores, for a text that comes alone. A model's encoders share it.

A network of any shape prepares each of its 200 nodes anew when the shape changes: 0.5 ms of the 2 ms that a short text takes. So
this one is bucketed: a branch of fixed shape for each usual length of one text, and one branch for all other shapes. Branches share
the packed weights. Each costs 5 to 10 MB and 0.3 to 1 s of one core, so they are built once the model serves: until then the
streams' own networks run everything.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from gateway.background import BackgroundThread
from gateway.engine.artifact import Manifest
from gateway.engine.encoder import Window, pad
from gateway.engine.fidelity import fidelities, min_fidelity
from gateway.engine.mapped_weights import MappedWeights
from gateway.engine.network import Network
from gateway.engine.openvino_import import openvino
from gateway.log import get_logger
from gateway.malloc import malloc_trim, release_memory

# Questions are short, chunks have up to 256 tokens. Beyond that a change of shape costs a tenth or less.
LENGTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256)
MANY = 1 << 16  # more tokens than any text that comes alone; a few times it must fit 32 bits, as OpenVINO makes all integers int32

log = get_logger()
ops = openvino.opset13


class LatencyNetwork:
    """Counts the encoders of a model that are at work. `network` is for an encoder that works alone; None until it is built.

    `afterwards` is called once there is nothing more to build.
    """

    def __init__(
        self,
        make: Callable[[], "BucketedNetwork"] | None = None,
        *,
        name: str = "",
        afterwards: Callable[[], object] = lambda: None,
    ) -> None:
        self.make = make
        self.name = name
        self.afterwards = afterwards
        self.network: BucketedNetwork | None = None
        self.num_working = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.is_made = threading.Event()  # set too if there will be no network
        if make is None:
            self.is_made.set()

    def start(self, after_seconds: float = 0.0) -> None:
        """Builds the network in a thread, which then ends. The thread is no daemon: the process waits for it before it exits."""
        if self.make is None:
            self.settle()
            return
        work = partial(self.build, self.make, after_seconds)
        BackgroundThread(f"latency-network-{self.name}", work, may_end=True, is_daemon=False).start()
        self.make = None

    def build(self, make: Callable[[], "BucketedNetwork"], after_seconds: float) -> None:
        if self.closing.wait(after_seconds):
            self.is_made.set()
            return
        try:
            self.network = make()
        except Exception as error:  # noqa: BLE001 - whatever OpenVINO raises: the streams' networks serve, a lone text just slower
            log.warning("no_network_of_all_cores", model=self.name, reason=f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            self.settle()
            self.is_made.set()
        if self.closing.is_set():
            self.network = None
            del make
            release_memory()

    def settle(self) -> None:
        """Gives back the memory that loading and building took and left. A call of the C library, so the event loop goes on."""
        self.afterwards()
        if trim := malloc_trim():
            trim()

    def close(self) -> None:
        """Drops the network. One that is being built goes with the model's memory once its thread ends: nothing can stop that."""
        self.closing.set()
        self.network = None

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Yields whether no other encoder is at work. At most one of those inside got true."""
        with self.lock:
            is_alone = self.num_working == 0
            self.num_working += 1
        try:
            yield is_alone
        finally:
            with self.lock:
                self.num_working -= 1


class BucketedNetwork(Network):
    """A Network with a branch for each of `lengths`."""

    def __init__(self, request: openvino.InferRequest, weights: MappedWeights, lengths: Sequence[int]) -> None:
        super().__init__(request, weights)
        self.lengths = lengths

    def length(self, num_rows: int, length: int) -> int:
        """The length to pad rows to: a single row to that of its branch, several to their own."""
        place = bisect_left(self.lengths, length) if num_rows == 1 else len(self.lengths)
        return self.lengths[place] if place < len(self.lengths) else length


def refuse_other_rows(network: BucketedNetwork, streams: Network, manifest: Manifest, shapes: Iterable[tuple[int, int]]) -> None:
    """Runs a batch of each of `shapes`, (rows, length), in both. Raises RuntimeError for other rows than those of `streams`.

    A batch has a text of one token less than its length: the proof's tokens, again and again. Each network may be as far off as a
    model may be.
    """
    known, info = manifest.proof.read().window, manifest.network
    least = 1 - 2 * (1 - min_fidelity(manifest.precision, info.kind))
    for num_rows, length in shapes:
        ids = np.resize(known.token_ids, max(1, length - 1)).tolist()
        arrays = pad([Window(ids, num_query_tokens=known.num_query_tokens)] * num_rows, length=length, network=info)
        fidelity = float(fidelities(network.rows(arrays), streams.rows(arrays), info.kind).min())
        if not fidelity >= least:  # nor NaN
            raise RuntimeError(f"its vector of {len(ids)} tokens is another: {fidelity:.5f}")


def build_bucketed(model: openvino.Model, lengths: Sequence[int]) -> openvino.Model:
    """The model with a branch for one row of each of `lengths`. All its inputs must have the same shape (rows, length)."""
    return _choose_bucket([_fix_length(model, length) for length in lengths] + [model.clone()], [*lengths, MANY])


def _choose_bucket(bodies: list[openvino.Model], lengths: list[int]) -> openvino.Model:
    """A model that chooses the first body whose length is at least the row's, by bisection: If nodes form a binary tree."""
    if len(bodies) == 1:
        return bodies[0]
    half = len(bodies) // 2
    then, other = _choose_bucket(bodies[:half], lengths[:half]), _choose_bucket(bodies[half:], lengths[half:])
    inputs = [ops.parameter([-1, -1], np.int64) for _ in then.get_parameters()]
    rows, length = (ops.gather(ops.shape_of(inputs[0]), np.int64(axis), np.int64(0)) for axis in (0, 1))
    one_long = ops.add(ops.multiply(ops.subtract(rows, np.int64(1)), np.int64(MANY)), length)
    node = ops.if_op(ops.less_equal(one_long, np.int64(lengths[half - 1])).output(0))
    node.set_then_body(then)
    node.set_else_body(other)
    for given, *taken in zip(inputs, then.get_parameters(), other.get_parameters(), strict=True):
        node.set_input(given.output(0), *taken)
    return openvino.Model([node.set_output(then.get_results()[0], other.get_results()[0])], inputs)


def _fix_length(model: openvino.Model, length: int) -> openvino.Model:
    """A copy for one row of this length. Its inputs still take any shape, as the If nodes around it need."""
    copy = model.clone()
    copy.reshape({port: [1, length] for port in copy.inputs})
    for old in copy.get_parameters():
        new = ops.parameter([-1, -1], np.int64)
        reshaped = ops.reshape(new, np.array([1, length], dtype=np.int64), special_zero=False)
        for target in old.output(0).get_target_inputs():
            target.replace_source_output(reshaped.output(0))
        copy.remove_parameter(old)
        copy.add_parameters([new])
    copy.validate_nodes_and_infer_types()
    return copy
