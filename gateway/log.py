"""Structured logging: one pipeline for our lines, uvicorn's and the libraries'. Texts, vectors and keys are never logged.

An exception is logged by its type and the lines of code it passed, without its message: a message may quote what a client sent.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog
import structlog.typing

Event = MutableMapping[str, Any]

_of_process: dict[str, str] = {}  # fields of every line of this process


def get_logger() -> Any:
    return _Logger()


class _Logger:
    """structlog's logger, bound once for each configuration: that takes 12 microseconds, as long as a whole line."""

    def __init__(self) -> None:
        self.processors: object = None
        self.bound: Any = None

    def __getattr__(self, name: str) -> Any:
        if not structlog.is_configured():
            return getattr(structlog.get_logger(), name)
        processors = structlog.get_config()["processors"]
        if processors is not self.processors:
            self.bound = structlog.get_logger().bind()
            self.processors = processors
        return getattr(self.bound, name)


class _LogStream:
    """Standard error. Its reader may leave, and its disk may be full: the line is lost, and no request or shutdown fails."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        try:
            self.file.write(text)
            self.file.flush()
        except BrokenPipeError:  # for good: all later output, also of libraries and at the exit, goes to /dev/null
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # a full disk may have room again; a closed file takes nothing more
            pass

    def flush(self) -> None:
        """Does nothing: `write` has flushed already."""


def configure(*, level: str, line_format: str) -> None:
    """Logs lines for a console or as JSON. "auto" chooses by standard error: a console on a terminal, else JSON for a collector."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()  # None if the caller closed it
    is_console = line_format == "console" or (line_format == "auto" and is_terminal)
    as_lines = structlog.dev.ConsoleRenderer(colors=is_terminal)
    renderer = as_lines if is_console else structlog.processors.JSONRenderer(serializer=as_json)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        _Stamp(),
        _error_without_message,
        _with_process,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
    )
    stream: Any = _LogStream(sys.stderr)  # Any: it has the methods that `logging` and structlog call
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in (
        "uvicorn",
        "uvicorn.error",
        "uvicorn.asgi",
        "sentence_transformers",
        "transformers",
        "httpx",
        "huggingface_hub",
        "filelock",
    ):
        logger = logging.getLogger(noisy)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(max(logging.WARNING, root.level))
    structlog.configure(  # our own lines bypass `logging`, which would double the cost of a line
        processors=[*shared, renderer],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    threading.excepthook = _log_thread_death


def name_process(name: str) -> None:
    """From now on each line tells the name of this process, one of several of a gateway."""
    _of_process["process"] = name


def _with_process(_logger: Any, _method: str, event: Event) -> Event:
    for field, value in _of_process.items():
        event.setdefault(field, value)
    return event


class _Stamp:
    """Adds the time, as structlog's TimeStamper does in UTC: most lines of one second share all of it but the fraction."""

    def __init__(self) -> None:
        self.second: tuple[int, str] = (0, "")

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        microseconds = time.time_ns() // 1000
        seconds = microseconds // 1_000_000
        known, text = self.second
        if seconds != known:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            self.second = seconds, text
        event["timestamp"] = f"{text}.{microseconds % 1_000_000:06d}Z"
        return event


def as_json(event: Event, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def _error_without_message(_logger: Any, _method: str, event: Event) -> Event:
    """Replaces `exc_info` by `error`, its type, and `at`, the lines of code it passed."""
    error = event.pop("exc_info", None)
    error = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
    if isinstance(error, BaseException):
        event["error"] = type(error).__qualname__
        event["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    return event


def _log_thread_death(arguments: threading.ExceptHookArgs) -> None:
    structlog.get_logger().error(
        "thread_died", thread=arguments.thread.name if arguments.thread else None, exc_info=arguments.exc_value
    )
