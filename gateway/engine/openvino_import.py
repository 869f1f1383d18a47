"""Safe import of OpenVINO: no telemetry, no deadlock, no crash on a signal. All modules import `openvino` from here.

Telemetry: importing the package reports to Google Analytics, and leaves a client id in the user's home. Without
`openvino_telemetry` it uses a stub instead.

Deadlock: the first access to a tensor's memory imports numpy while a C++ static is initialised (pybind11), and that import releases
the GIL. Two threads that do so at once wait for each other for ever, one of them with the GIL. So this module accesses one first.

Crash: the CPU plugin gives the thread that loads it a signal stack, and frees that memory in whichever thread drops the plugin
last. The next signal in the loading thread then ends the process without a visible cause. So one `Core` lives as long as the
process, and its plugin is loaded by a thread that then ends.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - after the line above

_ = openvino.Tensor(np.zeros(1, dtype=np.float32)).data

__all__ = ["CONVERSION_FAILURES", "core", "openvino"]

# Errors of converting a network. They are no RuntimeErrors, and have no class in common.
CONVERSION_FAILURES: tuple[type[Exception], ...] = (
    openvino.frontend.OpConversionFailure,
    openvino.frontend.OpValidationFailure,
    openvino.frontend.GeneralFailure,
    openvino.frontend.NotImplementedFailure,
    openvino.frontend.InitializationFailure,
)


@cache
def core() -> openvino.Core:
    """The process's only Core. Any thread may use it."""
    with ThreadPoolExecutor(1, "openvino-plugin") as loader:
        return loader.submit(_with_plugin).result()


def _with_plugin() -> openvino.Core:
    made = openvino.Core()
    made.get_property("CPU", "FULL_DEVICE_NAME")
    return made
