"""How a network is converted. What OpenVINO cannot convert is served through torch, and the reason is said in a line."""

import warnings

import torch

from gateway.engine.compiler import convert


class Counting(torch.nn.Module):
    """Counts as a mixture of experts counts the tokens of each."""

    def forward(self, ids):
        return torch.histc(ids.float(), bins=4)


class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = (torch.nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, inputs):
        return self.down(torch.nn.functional.silu(self.gate(inputs)) * self.up(inputs))


class Reference:
    def __init__(self, network, example):
        self.network = network
        self.example = example

    def trace(self, openvino):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer's
            return openvino.convert_model(self.network, example_input=self.example)


def test_a_network_with_an_operation_that_openvino_lacks_is_said_to_have_it():
    network, reason = convert(Reference(Counting(), torch.ones(4, dtype=torch.long)))
    assert network is None
    assert reason == "OpenVINO cannot convert it (No conversion rule found for operations: aten::histc)"


def test_a_gate_s_product_is_one_that_openvino_does_not_fuse():
    network, _ = convert(Reference(Gated(), torch.ones(1, 2, 8)))
    products = [node for node in network.get_ordered_ops() if node.get_type_name() == "Multiply"]
    assert [node.get_attributes()["auto_broadcast"] for node in products] == ["none"]
