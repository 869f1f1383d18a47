"""Linear layers of an OpenVINO model, and their replacement by 8-bit ones.

A layer is a MatMul of token vectors with a constant matrix. Layers that read the same vectors, as the query, key and value of
attention do, form a group: their input is quantised once.

Inputs have a scale and a lowest value for each channel, not one for all. The scales are folded into the weights and the lowest
values into the bias, so the network multiplies plain unsigned bytes: it costs no more than one scale for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.engine.openvino_import import openvino
from gateway.engine.rounding import MAX_CODE, QuantizedInput, QuantizedLinear

MIN_WIDTH = 16  # of a matrix that is quantised, in both directions
LEVELS = MAX_CODE + 1

ops = openvino.opset13
Node = Any  # OpenVINO has no types


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers with one input. `weights` are float32, each of shape (outputs, channels); `nodes` are their MatMuls."""

    source: Node
    nodes: list[Node]
    weights: list[NDArray[np.float32]]

    @property
    def num_multiplications(self) -> int:
        """Of one token."""
        return sum(weight.size for weight in self.weights)


def find_groups(model: openvino.Model) -> list[LayerGroup]:
    """The groups of the model's linear layers over token vectors, in the order in which they run."""
    groups: dict[tuple[str, int], LayerGroup] = {}
    for node in model.get_ordered_ops():
        weights = _weights_of(node)
        if weights is None:
            continue
        source = node.input_value(0)
        key = (source.get_node().get_friendly_name(), source.get_index())
        group = groups.setdefault(key, LayerGroup(source, [], []))
        group.nodes.append(node)
        group.weights.append(weights)
    return list(groups.values())


def _weights_of(node: Node) -> NDArray[np.float32] | None:
    """The constant matrix of a MatMul as (outputs, channels); None for any other node."""
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return None
    constant, shape = node.input_value(1).get_node(), node.input_value(0).get_partial_shape()
    if constant.get_type_name() != "Constant" or len(constant.shape) != 2 or shape.rank.is_dynamic:  # noqa: PLR2004 - a matrix
        return None
    data = np.asarray(constant.data, dtype=np.float32)
    weights = data if node.get_attributes()["transpose_b"] else data.T
    is_of_tokens = len(shape) in {2, 3} and shape[0].is_dynamic  # how many channels there are, the weights say
    return weights if is_of_tokens and min(weights.shape) >= MIN_WIDTH else None


def build_quantized(
    model: openvino.Model, layers: Sequence[tuple[QuantizedInput, Sequence[QuantizedLinear]] | None]
) -> openvino.Model:
    """A copy of the model with 8-bit layers. `layers` are for the groups of `find_groups`; None leaves a group as it is."""
    copy = model.clone()
    for group, layer in zip(find_groups(copy), layers, strict=True):
        if layer is None:
            continue
        codes = _quantize_input(group.source, layer[0])
        for node, linear in zip(group.nodes, layer[1], strict=True):
            _replace(node, codes, linear)
    copy.validate_nodes_and_infer_types()
    return copy


def _quantize_input(source: Node, scales: QuantizedInput) -> Node:
    """The source's codes, 0 to 255. The CPU plugin takes a scale for each channel as a Multiply, not in a FakeQuantize."""
    shape = [1] * (len(source.get_partial_shape()) - 1) + [len(scales.step)]
    scaled = ops.multiply(source, ops.constant((1 / scales.step).astype(np.float32).reshape(shape)))
    shifted = ops.add(scaled, ops.constant((-scales.lowest / scales.step).astype(np.float32).reshape(shape)))
    low, high = (ops.constant(np.full([1] * len(shape), value, dtype=np.float32)) for value in (0, MAX_CODE))
    return ops.fake_quantize(shifted, low, high, low, high, LEVELS)


def _replace(node: Node, codes: Node, linear: QuantizedLinear) -> None:
    """Puts the 8-bit layer in the place of `node`. Its bias is added to the layer's own if there is one: a node less to run."""
    targets = list(node.output(0).get_target_inputs())
    step = ops.constant(linear.step.astype(np.float32)[:, None])
    weights = ops.multiply(ops.convert(ops.constant(linear.codes), "f32"), step)
    product = ops.matmul(codes, weights, transpose_a=False, transpose_b=True)
    product.set_friendly_name(node.get_friendly_name())
    bias = _bias_after(targets)
    if bias is not None:
        place, constant = bias
        summed = (constant.data.astype(np.float64) + linear.bias.reshape([1] * (constant.data.ndim - 1) + [-1])).astype(np.float32)
        place.replace_source_output(ops.constant(summed).output(0))
    else:
        product = ops.add(product, ops.constant(linear.bias.astype(np.float32)))
    for target in targets:
        target.replace_source_output(product.output(0))


def _bias_after(targets: list[Node]) -> tuple[Node, Node] | None:
    """The input and the constant of the Add that alone reads a layer's output; None if there is no such Add."""
    if len(targets) != 1 or targets[0].get_node().get_type_name() != "Add":
        return None
    place = targets[0].get_node().input(1 - targets[0].get_index())
    constant = place.get_source_output().get_node()
    is_alone = constant.get_type_name() == "Constant" and len(constant.output(0).get_target_inputs()) == 1
    return (place, constant) if is_alone else None
