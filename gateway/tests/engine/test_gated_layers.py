"""A gated feed-forward network in a stream of one thread: where CPUs have AMX, OpenVINO ended the process."""

import numpy as np
import pytest

from gateway.engine.gated_layers import keep_apart
from gateway.engine.openvino_encoder import HINTS, native_precision
from gateway.engine.openvino_import import core, openvino

ops = openvino.opset13
HIDDEN, INNER = 256, 512
ONE_THREAD = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}


def swish(value):
    return ops.swish(value, ops.constant(np.float32(1)))


def sigmoid_product(value):
    return ops.multiply(value, ops.sigmoid(value))


def gelu(value):
    return ops.gelu(value, "erf")


def gated(activation):
    """A model of one such network, with weights as a file in float16 has them."""
    numbers = np.random.default_rng(1)

    def layer(value, shape):
        weights = ops.convert(ops.constant(numbers.normal(0, 0.05, shape).astype(np.float16)), "f32")
        return ops.matmul(value, weights, transpose_a=False, transpose_b=True)

    inputs = ops.parameter([-1, -1, HIDDEN], np.float32)
    product = ops.multiply(activation(layer(inputs, (INNER, HIDDEN))), layer(inputs, (INNER, HIDDEN)))
    return openvino.Model([layer(product, (HIDDEN, INNER))], [inputs])


@pytest.mark.parametrize("activation", [swish, sigmoid_product, gelu])
def test_one_thread_computes_it(activation):
    """Without `keep_apart` this ends the process on a CPU with AMX."""
    inputs = np.random.default_rng(2).normal(0, 1, (2, 24, HIDDEN)).astype(np.float32)
    exact, native = ({"INFERENCE_PRECISION_HINT": HINTS[name]} for name in ("float32", native_precision()))
    expected = core().compile_model(gated(activation), "CPU", ONE_THREAD | exact)([inputs])[0]
    model = gated(activation)
    keep_apart(model)
    found = core().compile_model(model, "CPU", ONE_THREAD | native)([inputs])[0]
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_only_products_of_one_shape_that_a_layer_reads_are_changed():
    inputs = ops.parameter([-1, 8], np.float32)
    scaled = ops.multiply(inputs, ops.constant(np.ones((1, 8), np.float32)))
    squared = ops.multiply(scaled, scaled)
    weights = ops.constant(np.ones((8, 8), np.float32))
    model = openvino.Model([ops.matmul(squared, weights, False, True), ops.matmul(scaled, weights, False, True)], [inputs])
    keep_apart(model)
    kinds = sorted(
        node.get_attributes()["auto_broadcast"] for node in model.get_ordered_ops() if node.get_type_name() == "Multiply"
    )
    assert kinds == ["none", "numpy"]
