"""The gateway's own command, with one hook more: SIGUSR2 kills a device thread, as only a fault inside the process can."""

import ctypes
import itertools
import signal
import sys
import threading
from types import FrameType

from gateway.__main__ import main


class Killed(BaseException):
    """No Exception, so that nothing of the device's handles it."""


def kill_one(_signal: int, _frame: FrameType | None) -> None:
    """Takes effect when the thread next runs Python: with its next batch at the latest."""
    devices = sorted((thread for thread in threading.enumerate() if thread.name.startswith("device-")), key=lambda each: each.name)
    if devices:
        victim = devices[next(turns) % len(devices)]
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(Killed))


turns = itertools.count()

if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, kill_one)
    sys.argv[0] = "gateway"
    main()
