"""Copies between host and CUDA device beside the computation: pinned memory, and a stream of their own.

On a CPU the same functions copy nothing, so that what is built on them is tested there.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.float32]


class Transfer:
    """Copies inputs in a stream of their own, while the batch before computes in the current one. For one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def to_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        """A copy on the device, which the current stream may read. The call returns before it is made."""
        host = torch.from_numpy(array)
        if self.stream is None:
            return host
        with torch.cuda.stream(self.stream):
            tensor = host.pin_memory().to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        tensor.record_stream(computing)  # the allocator must not give its memory away before the current stream has read it
        return tensor

    def to_host(self, tensor: torch.Tensor) -> Callable[[], Rows]:
        """Begins a copy to the host, behind what computes the tensor. Returns a function that waits for it."""
        if self.stream is None:
            return tensor.numpy
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        is_there.record(torch.cuda.current_stream(self.device))

        def wait() -> Rows:
            is_there.synchronize()
            rows: Rows = host.numpy()
            return rows

        return wait
