"""The rules of a whole input file, in OpenAI's words: what each line must be, how many there may be, one model, no custom_id twice.

Memory is 24 bytes a request: a digest of its custom_id, and its line.
"""

import hashlib
from array import array
from collections.abc import Iterator

import numpy as np

from gateway.batches.job import LineError
from gateway.config import BatchSettings
from gateway.wire import batch_lines
from gateway.wire.batch_lines import BadLine

MAX_ERRORS = 100  # that are listed
MAX_MODELS = 100  # that one file may name, if it may name several
DIGEST_BYTES = 16


class Validation:
    """Takes the lines in order. `errors` are all that is wrong, at most MAX_ERRORS; `models` the names, in order of appearance."""

    def __init__(self, endpoint: str, settings: BatchSettings, *, default_model: str | None, max_line_bytes: int) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.default_model = default_model
        self.max_line_bytes = max_line_bytes
        self.errors: list[LineError] = []
        self.models: dict[str, int] = {}  # with the line that named it first
        self.num_inputs = 0
        self.digests = bytearray()
        self.lines = array("Q")

    @property
    def num_requests(self) -> int:
        return len(self.lines)

    @property
    def is_hopeless(self) -> bool:
        """Whether it needs no further line."""
        return len(self.errors) >= MAX_ERRORS or self.num_requests > self.settings.max_requests

    def read(self, contents: list[bytes], first_line: int) -> None:
        """Reads consecutive lines, of which the first has this number, from 1. Blank lines are no requests."""
        for line, content in enumerate(contents, first_line):
            if self.is_hopeless:
                return
            if not batch_lines.is_blank(content):
                try:
                    self.read_line(content, line)
                except BadLine as bad:
                    self.errors.append(LineError(bad.code, bad.message, bad.param, line))

    def read_line(self, content: bytes, line: int) -> None:
        self.lines.append(line)
        self.digests += bytes(DIGEST_BYTES)  # of a line without one: replaced below
        if len(content.removesuffix(b"\n")) > self.max_line_bytes:
            raise BadLine("request_too_large", f"This line is too long: at most {self.max_line_bytes} bytes are accepted.")
        found = batch_lines.parse(content, line, self.endpoint)
        self.digests[-DIGEST_BYTES:] = hashlib.blake2b(found.custom_id.encode(), digest_size=DIGEST_BYTES).digest()
        if found.reason is not None:
            return
        model, num_inputs = batch_lines.outline(found.body)
        self.num_inputs += num_inputs
        model = model or self.default_model
        if model is None:
            raise BadLine("missing_required_parameter", "Missing required parameter: 'body.model'.", "body.model")
        if "\0" in model:  # which PostgreSQL does not store
            raise BadLine("invalid_value", "Invalid 'body.model': a model's name has no NUL character.", "body.model")
        if model not in self.models:
            if self.models and not self.settings.several_models:
                raise batch_lines.other_model(model)
            if len(self.models) == MAX_MODELS:
                raise BadLine("too_many_models", f"A batch may name at most {MAX_MODELS} models.", "body.model")
            self.models[model] = line

    def finish(self) -> set[int]:
        """Applies the rules of the whole file. Call it after the last line, in a thread: it sorts all digests.

        Returns the lines whose custom_id an earlier line has, as far as they are to be listed: `name_repeated` takes them.
        """
        self.errors += (LineError(*bad) for bad in self.wrong_totals())
        return set(self.repeated_lines()[: MAX_ERRORS - len(self.errors)])

    def name_repeated(self, content: bytes, line: int) -> None:
        """Lists a line whose custom_id an earlier line has."""
        bad = batch_lines.duplicate(batch_lines.parse(content, line, self.endpoint).custom_id)
        self.errors.append(LineError(bad.code, bad.message, bad.param, line))

    def wrong_totals(self) -> Iterator[tuple[str, str]]:
        settings = self.settings
        if not self.num_requests:
            yield "empty_file", "The input file is empty. Please ensure that the batch contains at least one request."
        if self.num_requests > settings.max_requests:
            yield (
                "too_many_tasks",
                f"The input file contains too many requests. The maximum number of requests in a batch is {settings.max_requests}.",
            )
        elif self.num_inputs > settings.max_inputs:
            most = f"The maximum number of inputs in a batch is {settings.max_inputs}."
            yield "too_many_inputs", f"The requests of the input file have {self.num_inputs} inputs. {most}"

    def repeated_lines(self) -> list[int]:
        """Returns the lines whose custom_id an earlier line has, in order."""
        digests = np.frombuffer(self.digests, dtype=np.uint64).reshape(-1, 2)
        order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests stay in the order of their lines
        ordered = digests[order]
        is_repeated = (ordered[1:] == ordered[:-1]).all(axis=1) & ordered[1:].any(axis=1)
        lines = np.frombuffer(self.lines, dtype=np.uint64) if self.lines else np.empty(0, dtype=np.uint64)
        return sorted(int(line) for line in lines[order[1:][is_repeated]])
