"""Attention as products of matrices: the rows of ScaledDotProductAttention, with every kind of mask."""

import numpy as np
import pytest

from gateway.engine.attention_products import NAME, decompose_attention
from gateway.engine.openvino_import import core, openvino

ROWS, HEADS, WIDTH, TOKENS = 2, 3, 8, 5
ops = openvino.opset13


def attention(*, mask=None, scale=None, is_causal=False, dtype=np.float32):
    parameters = [ops.parameter([-1, HEADS, -1, WIDTH], dtype) for _ in range(3)]
    more = [ops.constant(value) for value in (mask, scale) if value is not None]
    return openvino.Model([ops.scaled_dot_product_attention(*parameters, *more, causal=is_causal)], parameters)


def names(model):
    return [node.get_type_name() for node in model.get_ordered_ops()]


def rows(model, arrays):
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(arrays)[0]


KEYS = np.arange(TOKENS) < 4
MASKS = {
    "none": None,
    "of keys": np.stack([KEYS, KEYS[::-1]])[:, None, None],
    "of queries and keys": np.tril(np.ones((1, 1, TOKENS, TOKENS), dtype=bool)),
    "of numbers": np.linspace(-3, 0, TOKENS, dtype=np.float32).reshape(1, 1, 1, TOKENS),
}


@pytest.mark.parametrize("scale", [None, np.float32(0.5)])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_rows_are_those_of_the_one_node(mask, scale):
    if scale is not None and mask is None:
        mask = np.zeros((1, 1, 1, 1), dtype=np.float32)
    random = np.random.default_rng(3)
    arrays = [random.normal(size=(ROWS, HEADS, TOKENS, WIDTH)).astype(np.float32) for _ in range(3)]
    model = attention(mask=mask, scale=scale)
    expected = rows(model, arrays)
    decompose_attention(model)
    assert NAME not in names(model)
    assert model.outputs[0].partial_shape.compatible(openvino.PartialShape([-1, HEADS, -1, WIDTH]))
    np.testing.assert_allclose(rows(model, arrays), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"is_causal": True}, {"dtype": np.float16}])
def test_others_are_left_as_they_are(options):
    model = attention(**options)
    decompose_attention(model)
    assert NAME in names(model)
