"""The quantiser: gives a converted model 8-bit linear layers, calibrated by texts. Only the compiling child imports it.

Attention's own products, the table of words and everything between the layers stay as they are. Of the layers those may be left out
whose loss is the largest for the time they save.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.engine.encoder import NetworkInfo, Window, pad
from gateway.engine.fidelity import cosines
from gateway.engine.linear_layers import LayerGroup, build_quantized, find_groups
from gateway.engine.openvino_import import core, openvino
from gateway.engine.rounding import Moments, QuantizedInput, QuantizedLinear, quantize_input, round_linear
from gateway.errors import OperatorError

NUM_JUDGED = 48  # texts by which the loss of a layer is measured
MAX_MOMENTS_BYTES = 512 * 1024 * 1024  # of layers that are rounded at once; more are rounded in several runs
# One thread: texts run alone, and on a busy machine two threads wait for each other at every one of their small layers.
FLOAT32 = {
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": "1",
    "INFERENCE_NUM_THREADS": "1",
    "CPU_RUNTIME_CACHE_CAPACITY": "100",
}

Layers = list[tuple[QuantizedInput, list[QuantizedLinear]] | None]


def quantize(model: openvino.Model, windows: Sequence[Window], *, network: NetworkInfo, max_left: float) -> openvino.Model:
    """Returns a copy of `model` with 8-bit layers. `windows` are the calibration texts' and should resemble what will be embedded.

    Layers with up to `max_left` of all multiplications, a share from 0 to 1, stay as they are.

    Raises OperatorError for a model without linear layers.
    """
    groups = find_groups(model)
    if not groups:
        raise OperatorError("there is no linear layer in it that could be quantised")
    inputs = _measure_ranges(model, groups, windows, network)
    layers: Layers = []
    for chunk in _chunks(groups):
        layers += _round_layers(model, groups[chunk], inputs[chunk], windows, network)
    if max_left:
        for index in _choose_left(model, groups, layers, windows[-NUM_JUDGED:], network, max_left):
            layers[index] = None
    return build_quantized(model, layers)


def _chunks(groups: Sequence[LayerGroup]) -> Iterator[slice]:
    """Slices of the groups whose moments fit into memory together."""
    start, used = 0, 0
    for index, group in enumerate(groups):
        size = 4 * group.weights[0].shape[1] ** 2
        if used + size > MAX_MOMENTS_BYTES and index > start:
            yield slice(start, index)
            start, used = index, 0
        used += size
    yield slice(start, len(groups))


def _measure_ranges(
    model: openvino.Model, groups: Sequence[LayerGroup], windows: Sequence[Window], network: NetworkInfo
) -> list[QuantizedInput]:
    lowest = [np.full(group.weights[0].shape[1], np.inf, dtype=np.float32) for group in groups]
    highest = [-low for low in lowest]

    def see(index: int, rows: NDArray[np.float32]) -> None:
        np.minimum(lowest[index], rows.min(axis=0), out=lowest[index])
        np.maximum(highest[index], rows.max(axis=0), out=highest[index])

    _run(model, groups, windows, network, see)
    return [quantize_input(low, high) for low, high in zip(lowest, highest, strict=True)]


def _round_layers(
    model: openvino.Model,
    groups: Sequence[LayerGroup],
    inputs: Sequence[QuantizedInput],
    windows: Sequence[Window],
    network: NetworkInfo,
) -> Layers:
    moments = [Moments(scales) for scales in inputs]
    _run(model, groups, windows, network, lambda index, rows: moments[index].add(rows))
    return [(seen.scales, round_linear(group.weights, seen)) for group, seen in zip(groups, moments, strict=True)]


def _run(
    model: openvino.Model,
    groups: Sequence[LayerGroup],
    windows: Sequence[Window],
    network: NetworkInfo,
    see: Callable[[int, NDArray[np.float32]], None],
) -> None:
    """Runs the texts one at a time, without padding, and shows `see` each group's inputs, of shape (tokens, channels)."""
    outputs = [group.source for group in groups]
    request = core().compile_model(openvino.Model(outputs, model.get_parameters()), "CPU", FLOAT32).create_infer_request()
    for window in windows:
        found = request.infer(dict(enumerate(pad([window], length=len(window), network=network))))
        for index in range(len(groups)):
            rows = np.asarray(found[index], dtype=np.float32)
            see(index, rows.reshape(-1, rows.shape[-1]))


def _choose_left(  # noqa: PLR0913, PLR0917
    model: openvino.Model,
    groups: Sequence[LayerGroup],
    layers: Layers,
    windows: Sequence[Window],
    network: NetworkInfo,
    max_left: float,
) -> list[int]:
    """The groups that stay as they are: those with the largest loss a multiplication when they alone are quantised."""
    expected = _rows(model, windows, network)
    left: list[int] = []
    room = max_left * sum(group.num_multiplications for group in groups)
    shares = []
    for index, group in enumerate(groups):
        alone: Layers = [layer if number == index else None for number, layer in enumerate(layers)]
        loss = 1 - float(cosines(_rows(build_quantized(model, alone), windows, network), expected).mean())
        shares.append(loss / group.num_multiplications)
    for index in np.argsort(-np.array(shares)):
        if groups[index].num_multiplications <= room:
            room -= groups[index].num_multiplications
            left.append(int(index))
    return left


def _rows(model: openvino.Model, windows: Sequence[Window], network: NetworkInfo) -> NDArray[np.float32]:
    request = core().compile_model(model, "CPU", FLOAT32).create_infer_request()
    batches = (dict(enumerate(pad([window], length=len(window), network=network))) for window in windows)
    return np.concatenate([np.array(request.infer(batch)[0], dtype=np.float32) for batch in batches])
