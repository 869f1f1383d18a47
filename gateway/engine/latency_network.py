"""All cores for a text that comes alone: one network between the encoders of a model, made once the others serve.

A network that takes any shape prepares each of its 200 nodes anew when the shape is another than before: 0.5 ms of the 2 that a
short text takes. So this one has a branch for each usual length of one text, fixed, and one for all the rest. Branches share the
packed weights. Each costs 10 MB and 0.3 s of one core, which is why nobody waits for them: until then the streams' do it all.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from gateway.background import BackgroundThread
from gateway.engine.network import Network
from gateway.engine.openvino_import import openvino
from gateway.log import get_logger

LENGTHS = (16, 24, 32, 40, 48)  # of what is asked for alone most are questions; beyond, a change of shape is a tenth and less
MAX_BRANCHED_BYTES = 150 * 1000 * 1000  # of weights on disk: a larger network computes so long that branches gain it little
MANY = 1 << 16  # longer than what comes alone; a few times that must fit the 32 bits that OpenVINO makes of all integers

log = get_logger()
ops = openvino.opset13


class LatencyNetwork:
    """Knows how many of a model's encoders are at work. `network` is for the one that works alone; None where there is none yet."""

    def __init__(self, make: Callable[[], "BucketedNetwork"] | None = None, *, name: str = "") -> None:
        self.make = make
        self.name = name
        self.network: BucketedNetwork | None = None
        self.num_working = 0
        self.lock = threading.Lock()
        self.is_made = threading.Event()  # or will never be
        if make is None:
            self.is_made.set()

    def start(self) -> None:
        """Makes the network, in a thread of its own that ends with it. The process waits for it before it ends."""
        if self.make is not None:
            BackgroundThread(f"crew-{self.name}", partial(self.run_forever, self.make), may_end=True, is_daemon=False).start()
            self.make = None

    def run_forever(self, make: Callable[[], "BucketedNetwork"]) -> None:
        try:
            self.network = make()
        except Exception as error:  # noqa: BLE001 - whatever OpenVINO raises: the others serve as well, a lone text just slower
            log.warning("no_network_of_all_cores", model=self.name, reason=f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            self.is_made.set()

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


class BucketedNetwork(Network):
    """A Network that was given branches of these lengths."""

    def __init__(self, request: openvino.InferRequest, lengths: Sequence[int]) -> None:
        super().__init__(request)
        self.lengths = lengths

    def length(self, num_rows: int, length: int) -> int:
        """What so many rows of a length are to be padded to: one alone to that of its branch."""
        place = bisect_left(self.lengths, length) if num_rows == 1 else len(self.lengths)
        return self.lengths[place] if place < len(self.lengths) else length


def build_bucketed(model: openvino.Model, lengths: Sequence[int]) -> openvino.Model:
    """The same model, whose inputs all have one shape (rows, length), with a branch for one row of each of these lengths."""
    return choose_bucket([fix_length(model, length) for length in lengths] + [model.clone()], [*lengths, MANY])


def choose_bucket(bodies: list[openvino.Model], lengths: list[int]) -> openvino.Model:
    """The first of these whose length the row has at most, found by halves."""
    if len(bodies) == 1:
        return bodies[0]
    half = len(bodies) // 2
    then, other = choose_bucket(bodies[:half], lengths[:half]), choose_bucket(bodies[half:], lengths[half:])
    inputs = [ops.parameter([-1, -1], np.int64) for _ in then.get_parameters()]
    rows, length = (ops.gather(ops.shape_of(inputs[0]), np.int64(axis), np.int64(0)) for axis in (0, 1))
    one_long = ops.add(ops.multiply(ops.subtract(rows, np.int64(1)), np.int64(MANY)), length)
    node = ops.if_op(ops.less_equal(one_long, np.int64(lengths[half - 1])).output(0))
    node.set_then_body(then)
    node.set_else_body(other)
    for given, *taken in zip(inputs, then.get_parameters(), other.get_parameters(), strict=True):
        node.set_input(given.output(0), *taken)
    return openvino.Model([node.set_output(then.get_results()[0], other.get_results()[0])], inputs)


def fix_length(model: openvino.Model, length: int) -> openvino.Model:
    """A copy for one row of this length. Its inputs are still of any, as what chooses between copies knows no other."""
    copy = model.clone()
    copy.reshape({port: [1, length] for port in copy.inputs})
    for old in copy.get_parameters():
        new = ops.parameter([-1, -1], np.int64)
        told = ops.reshape(new, np.array([1, length], dtype=np.int64), special_zero=False)
        for target in old.output(0).get_target_inputs():
            target.replace_source_output(told.output(0))
        copy.remove_parameter(old)
        copy.add_parameters([new])
    copy.validate_nodes_and_infer_types()
    return copy
