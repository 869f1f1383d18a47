"""Attention as the products of matrices it is made of, for OpenVINO's CPU plugin. Only the compiling child imports it.

A traced network has ScaledDotProductAttention nodes. The plugin takes them apart itself, but into a transposition of the keys and
a product, where one product of transposed keys does: 2 to 4 % of MiniLM's time in any precision (OpenVINO 2026.4).
"""

import math

import numpy as np

from gateway.engine.openvino_import import openvino

ops = openvino.opset13

NAME = "ScaledDotProductAttention"
MAX_INPUTS = 5  # queries, keys, values, mask, scale; what a further one means is not known here


def decompose_attention(model: openvino.Model) -> None:
    """Replaces each such node of four-dimensional float32 inputs that is not causal by itself: transformers give masks instead."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == NAME and _is_plain(node):
            node.output(0).replace(_attention(*(node.input_value(index) for index in range(node.get_input_size()))).output(0))
    model.validate_nodes_and_infer_types()


def _is_plain(node: openvino.Node) -> bool:
    queries = node.input_value(0)
    shape = queries.get_partial_shape()
    is_float = queries.get_element_type() == openvino.Type.f32
    has_width = shape.rank.is_static and len(shape) == 4 and shape[3].is_static  # noqa: PLR2004 - (texts, heads, tokens, width)
    return is_float and has_width and node.get_input_size() <= MAX_INPUTS and not node.get_attributes()["causal"]


def _attention(
    queries: openvino.Output,
    keys: openvino.Output,
    values: openvino.Output,
    mask: openvino.Output | None = None,
    scale: openvino.Output | None = None,
) -> openvino.Node:
    """softmax(queries keys^T scale + mask) values; a boolean mask is true where a query attends to a key."""
    if scale is None:
        scale = ops.constant(np.float32(1 / math.sqrt(queries.get_partial_shape()[3].get_length()))).output(0)
    scores = ops.matmul(ops.multiply(queries, scale), keys, transpose_a=False, transpose_b=True)
    if mask is not None:
        if mask.get_element_type() == openvino.Type.boolean:
            mask = ops.select(mask, ops.constant(np.float32(0)), ops.constant(np.float32(-np.inf)))
        scores = ops.add(scores, mask)
    return ops.matmul(ops.softmax(scores, axis=-1), values, transpose_a=False, transpose_b=False)
