"""Callers of several models at once: openai-python in threads, each with one new text after another, and what each was told."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from openai import APIStatusError, OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY

CALLERS_A_MODEL = 2
PAUSE_SECONDS = 0.2  # a caller who was refused does not ask again at once
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Told:
    """`error` is the whole body of a refusal, `seconds` how long the caller waited."""

    status: int
    seconds: float
    error: Any = None
    retry_after: str | None = None

    @property
    def message(self) -> str:
        return str(self.error["error"]["message"]) if self.error else ""


@dataclass(slots=True)
class Load:
    """`told` by model, each in the order in which answers came."""

    base_url: str
    told: dict[str, list[Told]]
    is_over: threading.Event = field(default_factory=threading.Event)

    def num_served(self, name: str) -> int:
        return sum(told.status == 200 for told in list(self.told[name]))

    def call(self, name: str, caller: int) -> None:
        """Nothing is tried again, and no text is sent twice: no cache answers, and no refusal is hidden."""
        with OpenAI(base_url=self.base_url, api_key=ENVIRONMENT_KEY, max_retries=0, timeout=TIMEOUT_SECONDS) as client:
            for number in itertools.count():
                if self.is_over.is_set():
                    return
                self.told[name].append(asked(client, name, f"{name}, caller {caller}, text {number} {time.monotonic()}"))
                if self.told[name][-1].status != 200:
                    self.is_over.wait(PAUSE_SECONDS)


def asked(client: OpenAI, name: str, text: str) -> Told:
    started = time.monotonic()
    try:
        client.embeddings.create(model=name, input=text)
    except APIStatusError as error:
        answer = error.response
        return Told(error.status_code, time.monotonic() - started, answer.json(), answer.headers.get("retry-after"))
    return Told(200, time.monotonic() - started)


@contextmanager
def load_on(base_url: str, names: Sequence[str]) -> Iterator[Load]:
    load = Load(base_url, {name: [] for name in names})
    callers = [threading.Thread(target=load.call, args=(name, caller)) for name in names for caller in range(CALLERS_A_MODEL)]
    for caller in callers:
        caller.start()
    try:
        yield load
    finally:
        load.is_over.set()
        for caller in callers:
            caller.join()
