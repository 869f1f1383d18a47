"""What OpenVINO does to threads: the first two inferences of a process at once, and signals after a model is dropped."""

import subprocess
import sys

TWO_AT_ONCE = """
import builtins, threading, time
import numpy as np
from gateway.engine.openvino_import import openvino

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


LOADED_HERE_DROPPED_THERE = """
import os, signal, sys, threading
from pathlib import Path
from gateway.engine import artifact, openvino_encoder

place = Path(sys.argv[1])
held = [openvino_encoder.load("m", place, artifact.read(place), threads=1, streams=1)]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
came = []
signal.signal(signal.SIGHUP, lambda *_: came.append(True))
os.kill(os.getpid(), signal.SIGHUP)
assert came
"""


def test_the_first_two_inferences_of_a_process_may_be_at_once():
    subprocess.run([sys.executable, "-c", TWO_AT_ONCE], timeout=60, check=True)


def test_a_signal_finds_its_stack_where_another_thread_dropped_the_model(place):
    subprocess.run([sys.executable, "-c", LOADED_HERE_DROPPED_THERE, place], timeout=60, check=True)
