"""Which step of a request's road the event loop's thread is at: a sampler inside the gateway that is measured.

Statistical profiling: a timer interrupts the main thread every millisecond, and the CPU time that the thread used since the last
time is the step's whose code it is in. Work in C, as a system call, counts for the Python code that follows or called it.
"""

import json
import signal
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

INTERVAL_SECONDS = 0.001
BEGIN, END = signal.SIGUSR1, signal.SIGUSR2

# In the order of the road; of the files that match, the longest beginning counts.
STEPS: dict[str, tuple[str, ...]] = {
    "sockets and HTTP": ("uvicorn/", "gateway/server/"),
    "request id, metrics of HTTP, log line": (
        "gateway/api/middleware.py", "gateway/api/request_log.py", "gateway/api/cors.py", "gateway/log.py", "structlog/",
        "gateway/metrics/http.py",
    ),
    "routing": ("litestar/", "gateway/api/paths.py", "gateway/reload/"),
    "authentication": ("gateway/api/authentication.py", "gateway/access/"),
    "limits, usage, admission": (
        "gateway/access/limits/", "gateway/access/usage/", "gateway/access/admission.py", "gateway/api/limit_headers.py",
        "gateway/processes/remote_lease.py", "gateway/processes/known_limits.py", "gateway/processes/use_buffer.py",
        "gateway/processes/shared_admission.py",
    ),
    "body": ("gateway/api/body.py", "gateway/wire/"),
    "handler": (
        "gateway/api/", "gateway/embedding/", "gateway/tracing.py", "gateway/background.py", "gateway/processes/front_handler.py",
    ),
    "cache and single flight": ("gateway/embedding/cache.py", "gateway/embedding/cached.py"),
    "tokenising": (
        "gateway/engine/preprocessor", "gateway/engine/tokenizer.py", "gateway/engine/word_ids.py", "gateway/engine/token_ids.py",
        "gateway/embedding/long_input.py", "gateway/processes/front_tokenizing.py", "gateway/calls/packing.py",
    ),
    "queue": ("gateway/engine/",),
    "vectors": ("gateway/embedding/vectors.py",),
    "reply": ("gateway/wire/response.py", "gateway/api/inference_headers.py", "gateway/api/response_headers.py"),
    "metrics of models": ("gateway/metrics/", "prometheus_client/"),
    "calls between processes": ("gateway/calls/", "gateway/processes/"),
}  # fmt: skip
OTHER = "event loop"
BEGINNINGS = sorted(((each, step) for step, files in STEPS.items() for each in files), key=lambda pair: -len(pair[0]))


class StepSampler:
    """Samples between two signals, and then writes `path`: CPU microseconds of the main thread, by step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spent_ns: dict[str, int] = defaultdict(int)
        self.known: dict[str, str | None] = {}
        self.last_ns = 0
        self.wakeup_fd = -1

    def install(self) -> None:
        """Called on the main thread, which runs the event loop."""
        signal.signal(BEGIN, self._begin)
        signal.signal(END, self._end)

    def _begin(self, _signal: int, _frame: FrameType | None) -> None:
        self.wakeup_fd = signal.set_wakeup_fd(-1)  # else each sample would wake the loop
        self.spent_ns.clear()
        self.last_ns = time.thread_time_ns()
        signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def _end(self, _signal: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends a child whose supervisor is gone
        signal.set_wakeup_fd(self.wakeup_fd)
        whole = self.path.with_suffix(".part")
        whole.write_text(json.dumps({step: spent / 1000 for step, spent in self.spent_ns.items()}))
        whole.rename(self.path)

    def _sample(self, _signal: int, frame: FrameType | None) -> None:
        now = time.thread_time_ns()
        self.spent_ns[self._step_of(frame)] += now - self.last_ns
        self.last_ns = time.thread_time_ns()  # without the time that this took

    def _step_of(self, frame: FrameType | None) -> str:
        """The step of the innermost frame that belongs to one."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name not in self.known:
                self.known[name] = next((step for each, step in BEGINNINGS if f"/{each}" in name), None)
            if step := self.known[name]:
                return step
            frame = frame.f_back
        return OTHER
