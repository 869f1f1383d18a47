"""Writes model.onnx of a BERT's folder: `python bert_onnx.py FOLDER FILE`. It runs in the environment that has torch and onnx.

The graph is that of torch's tracing exporter, at an opset whose patterns ONNX Runtime's own fusions of BERT know. Pooling is
outside, as fastembed expects.
"""

import sys
import warnings
from typing import Any

import torch
from transformers import AutoModel

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"


class Network(torch.nn.Module):
    """The inputs and the one output that fastembed gives and takes."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.network(**dict(zip(INPUTS, inputs, strict=True))).last_hidden_state
        return states


def main() -> None:
    folder, file = sys.argv[1:]
    warnings.simplefilter("ignore")  # the tracer warns of shapes that it makes dynamic all the same
    network = AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()
    ids = torch.ones((2, 9), dtype=torch.int64)
    axes = {name: {0: "batch", 1: "sequence"} for name in (*INPUTS, OUTPUT)}
    with torch.inference_mode():
        torch.onnx.export(
            Network(network), (ids, ids, torch.zeros_like(ids)), file, input_names=list(INPUTS), output_names=[OUTPUT],
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip


if __name__ == "__main__":
    main()
