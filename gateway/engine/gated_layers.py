"""Keeps the layers of gated feed-forward networks (SwiGLU, GeGLU) apart. Only the compiling child imports it.

On CPUs with AMX, OpenVINO's plugin fuses the three layers into one node, which divides its work among half of a stream's threads. A
stream of one thread has no half: SIGFPE while the network is compiled (seen with 2026.4; openvinotoolkit/openvino#33300). With two
threads the node is slower in bulk.
"""

from gateway.engine.openvino_import import openvino


def keep_apart(model: openvino.Model) -> None:
    """Multiplies a gate's two factors without broadcasting, which the fusion does not recognise. The product is the same."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Multiply" and _feeds_a_layer(node):
            first, second = node.input_value(0), node.input_value(1)
            if first.get_partial_shape() == second.get_partial_shape():
                node.output(0).replace(openvino.opset13.multiply(first, second, auto_broadcast="NONE").output(0))
    model.validate_nodes_and_infer_types()


def _feeds_a_layer(node: openvino.Node) -> bool:
    return any(reader.get_node().get_type_name() == "MatMul" for reader in node.output(0).get_target_inputs())
