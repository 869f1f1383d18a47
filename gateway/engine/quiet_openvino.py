"""OpenVINO, safe to import and to use from threads. Whoever wants `openvino` takes it from here, so that nobody comes first.

Importing the package tells Google Analytics of it, and leaves a client id in the user's home; without `openvino_telemetry` it takes
a stub of its own. And the first look at a tensor's memory imports numpy while a C++ static is being made (pybind11), which lets the
GIL go: two threads that look at once wait for each other for good, one of them with the GIL. Here one looks before others can.
"""

import sys

import numpy as np

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - after the line above

_ = openvino.Tensor(np.zeros(1, dtype=np.float32)).data

__all__ = ["openvino"]
