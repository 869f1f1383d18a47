"""OpenVINO without its telemetry: importing the package tells Google Analytics of it, and leaves a client id in the user's home.

Without `openvino_telemetry` it takes a stub of its own. Whoever wants `openvino` takes it from here, so that nobody comes first.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - after the line above

__all__ = ["openvino"]
