"""The first of several largest values, for OpenVINO's CPU plugin. Only the compiling child imports it.

torch's `max` and `topk` give the first index of equal values, and pooling by the last token finds it so, as the first one in the
mask read backwards. A traced TopK may give any of them, and does where shapes are fixed (seen with 2026.4): another token's vector.
"""

from gateway.engine.openvino_import import openvino

ops = openvino.opset13


def stabilise_maxima(model: openvino.Model) -> None:
    """Makes each TopK node that does not sort by index a stable one. OpenVINO has these for sorted values alone."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "TopK" and (asked := node.get_attributes())["sort"] != "index":
            data, count = node.input_values()
            stable = ops.topk(data, count, asked["axis"], asked["mode"], "value", asked["index_element_type"], stable=True)
            for output, replacement in zip(node.outputs(), stable.outputs(), strict=True):
                output.replace(replacement)
    model.validate_nodes_and_infer_types()
