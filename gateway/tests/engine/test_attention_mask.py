"""What is traced has no mask of every query and key for each row: at 8,192 tokens it would take 67 MB a step."""

from math import prod

import pytest

from gateway.engine.openvino_import import openvino
from gateway.engine.torch_loader import load_encoder
from gateway.testing.architectures import model_of

ROWS, LENGTH = 3, 97  # a length that no width of the network has


def masks(kind, folder):
    """The shapes of all tensors of booleans, one number for each query and key."""
    network = load_encoder(model_of(kind, folder), device="cpu", precision="float32", threads=0).trace(openvino)
    network.reshape({port: [ROWS, LENGTH] for port in network.inputs})
    outputs = [
        output for node in network.get_ops() for output in node.outputs() if output.get_element_type() == openvino.Type.boolean
    ]
    return {tuple(output.get_shape()) for output in outputs if list(output.get_shape())[-2:] == [LENGTH, LENGTH]}


@pytest.mark.parametrize("kind", ["bert", "xlm-r", "distilbert"])
def test_a_network_that_looks_both_ways_has_a_mask_of_keys_alone(kind, tmp_path):
    assert masks(kind, tmp_path) == set()


def test_a_causal_network_has_one_mask_for_all_rows(tmp_path):
    assert {prod(shape) for shape in masks("qwen3", tmp_path)} == {LENGTH * LENGTH}
