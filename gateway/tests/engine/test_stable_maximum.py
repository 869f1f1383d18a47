"""Of equal values the first is the largest, as in torch: pooling by the last token finds it so."""

import numpy as np
import pytest

from gateway.engine.openvino_import import core, openvino
from gateway.engine.stable_maximum import stabilise_maxima

ops = openvino.opset13


def first_one(length, sort="none"):
    """A model of a fixed shape: where the first 1 of a mask is."""
    mask = ops.parameter([1, length], np.int32)
    return openvino.Model([ops.topk(mask, np.int64(1), 1, "max", sort, "i64").output(1)], [mask])


@pytest.mark.parametrize("length", [7, 16, 24, 64, 160])
def test_the_first_of_equal_values_is_found(length):
    model = first_one(length)
    stabilise_maxima(model)
    run = core().compile_model(model, "CPU")
    for place in range(length):
        mask = (np.arange(length) >= place).astype(np.int32)[None]
        assert run([mask])[0].item() == place


def test_one_that_is_sorted_by_index_is_left():
    model = first_one(8, sort="index")
    stabilise_maxima(model)
    assert [node.get_attributes()["stable"] for node in model.get_ordered_ops() if node.get_type_name() == "TopK"] == [False]
