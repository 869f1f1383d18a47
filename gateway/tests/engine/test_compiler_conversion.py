"""What OpenVINO cannot convert is served through torch, and the reason is said in a line."""

import warnings

import torch

from gateway.engine.compiler import convert


class Counting(torch.nn.Module):
    """Counts as a mixture of experts counts the tokens of each."""

    def forward(self, ids):
        return torch.histc(ids.float(), bins=4)


class Reference:
    def trace(self, openvino):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer's
            return openvino.convert_model(Counting(), example_input=torch.ones(4, dtype=torch.long))


def test_a_network_with_an_operation_that_openvino_lacks_is_said_to_have_it():
    network, reason = convert(Reference())
    assert network is None
    assert reason == "OpenVINO cannot convert it (No conversion rule found for operations: aten::histc)"
