"""The child that compiles leaves the CPUs to requests that are served beside it."""

import os
import sys

import pytest

from gateway.cpus import num_cpus
from gateway.engine.compiler import NICENESS, CompileProcess

WAITING = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")
@pytest.mark.parametrize("is_serving", [True, False])
@pytest.mark.parametrize("has_own_code", [True, False])
def test_a_child_beside_serving_has_a_low_priority_and_half_of_the_cores(is_serving, has_own_code, tmp_path):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    child = CompileProcess(lambda: is_serving)
    with child.start(WAITING, own_code_in=tmp_path if has_own_code else None) as process:
        found = os.getpriority(os.PRIO_PROCESS, process.pid), os.sched_getscheduler(process.pid)
        child.stop()
    assert found == ((NICENESS, os.SCHED_BATCH) if is_serving else (own, os.SCHED_OTHER))
    if is_serving:
        assert child.num_threads == max(1, num_cpus() // 2)
