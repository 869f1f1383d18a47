"""Device threads begin together, so the first inference of a process is two at once."""

import subprocess
import sys

TWO_AT_ONCE = """
import builtins, threading, time
import numpy as np
from gateway.engine.quiet_openvino import openvino

numbers = openvino.opset13.parameter([-1, -1], np.int64)
compiled = openvino.Core().compile_model(openvino.Model([openvino.opset13.abs(numbers)], [numbers]), "CPU", {"NUM_STREAMS": "2"})
requests, together = [compiled.create_infer_request() for _ in range(2)], threading.Barrier(2)
imported = builtins.__import__

def slowly(name, *rest):
    if name.startswith("numpy"):
        time.sleep(0.5)  # what holds the lock of a C++ static lets the GIL go here, for the other thread to come and wait for both
    return imported(name, *rest)

def infer(request):
    together.wait()
    request.infer({0: np.ones((2, 8), np.int64)})

builtins.__import__ = slowly
threads = [threading.Thread(target=infer, args=[request]) for request in requests]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_two_inferences_of_a_process_may_be_at_once():
    subprocess.run([sys.executable, "-c", TWO_AT_ONCE], timeout=60, check=True)
