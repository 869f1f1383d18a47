"""One infer request of a compiled model, for one thread at a time."""

import numpy as np
from numpy.typing import NDArray

from gateway.engine.encoder import OutOfMemory
from gateway.engine.mapped_weights import MappedWeights
from gateway.engine.openvino_import import openvino

# Short of memory, OpenVINO 2026.4 may fail silently and leave the previous batch's output. So each output is overwritten once read.
STALE = np.finfo(np.float32).max
NO_MEMORY = ("Failed to allocate", "bad_alloc")  # in the text of a RuntimeError: OpenVINO has no separate class for it


class Network:
    def __init__(self, request: openvino.InferRequest, weights: MappedWeights) -> None:
        self.request = request
        self.weights = weights  # the request reads from them

    def rows(self, arrays: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Runs a batch. Raises OutOfMemory, also if OpenVINO reported no error but left the previous batch's rows."""
        try:
            output = self.request.infer(dict(enumerate(arrays)), share_outputs=True)[0]  # inputs are copied in, this is a view
        except RuntimeError as error:
            if any(sign in str(error) for sign in NO_MEMORY):
                raise OutOfMemory from None
            raise
        if len(output) != len(arrays[0]) or output[0, 0] == STALE:
            raise OutOfMemory
        rows = np.array(output, dtype=np.float32)
        output.fill(STALE)
        return rows
