"""OpenVINO, safe to import and to use from threads. Whoever wants `openvino` takes it from here, so that nobody comes first.

Importing the package tells Google Analytics of it, and leaves a client id in the user's home; without `openvino_telemetry` it takes
a stub of its own. And the first look at a tensor's memory imports numpy while a C++ static is being made (pybind11), which lets the
GIL go: two threads that look at once wait for each other for good, one of them with the GIL. Here one looks before others can.
The CPU plugin gives the thread that loads it a stack for signals, and takes the memory back in whichever thread drops it last: the
next signal in the first one ends the process, as if without a cause. So one `Core` serves the process to its end, and the thread
that loaded its plugin is gone.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - after the line above

_ = openvino.Tensor(np.zeros(1, dtype=np.float32)).data

__all__ = ["core", "openvino"]


@cache
def core() -> openvino.Core:
    """The process's one, which any thread may use."""
    with ThreadPoolExecutor(1, "openvino-plugin") as loader:
        return loader.submit(with_plugin).result()


def with_plugin() -> openvino.Core:
    made = openvino.Core()
    made.get_property("CPU", "FULL_DEVICE_NAME")
    return made
