"""Packs a request's windows into one int32 array, so that token ids are sent as raw memory and not as lists. The layout:

number of inputs n, number of windows w, 1 if the client sent an array, 1 if positions follow, the index of the windows' task
windows of each input (n)   positions (n, or none)   weights (w)   lengths (w)   prompt lengths (w)   query lengths (w)   ids
"""

from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gateway.config import Task
from gateway.embedding.embedder import Inputs
from gateway.engine.encoder import Window
from gateway.engine.preprocessor import Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = 5  # integers before the counts
TASKS: tuple[Task | Literal[""], ...] = ("", *get_args(Task))  # a request has one, by its input_type


@dataclass(frozen=True, slots=True)
class PackedWindows:
    """`positions` are the client's numbers of the inputs, for errors that name one; None if they are 0, 1, 2 …"""

    work: Windows
    is_array: bool
    positions: tuple[int, ...] | None


def pack(inputs: Inputs, work: Windows) -> NDArray[np.int32]:
    """The packed windows: one-dimensional, int32. Takes milliseconds for 100,000 ids: too long for the event loop."""
    if len(work.windows) == 1 and inputs.positions is None:
        return _pack_one(inputs, work)
    parts: list[Sequence[int]] = [
        [len(work.counts), len(work.windows), inputs.is_array, inputs.positions is not None, TASKS.index(work.windows[0].task)],
        work.counts,
        inputs.positions or (),
        work.weights,
        [len(window) for window in work.windows],
        [window.num_prompt_tokens for window in work.windows],
        [window.num_query_tokens for window in work.windows],
        *(window.token_ids for window in work.windows),
    ]
    return np.fromiter(chain.from_iterable(parts), dtype=np.int32, count=sum(map(len, parts)))


def _pack_one(inputs: Inputs, work: Windows) -> NDArray[np.int32]:
    """One short text, the most frequent request, in a fifth of the time."""
    [window], [weight] = work.windows, work.weights
    head = (1, 1, inputs.is_array, 0, TASKS.index(window.task), 1, weight, len(window))
    return np.array([*head, window.num_prompt_tokens, window.num_query_tokens, *window.token_ids], dtype=np.int32)


def unpack(array: "NDArray[np.int32] | memoryview[int]") -> PackedWindows:
    """The inverse of `pack`. `array` may be a memoryview of int32, too. Raises ValueError if the array's parts do not add up."""
    numbers: list[int] = array.tolist()
    num_inputs, num_windows, is_array, has_positions, task_number = numbers[:HEAD]
    if not 0 <= task_number < len(TASKS):
        raise ValueError("the array is no parcel: it names no task")
    task = TASKS[task_number]
    if num_inputs == num_windows == 1 and not has_positions:
        return _unpack_one(numbers, task, is_array=bool(is_array))
    sizes = (num_inputs, num_inputs * has_positions, *[num_windows] * 4)
    edges = list(accumulate(sizes, initial=HEAD))
    counts, positions, weights, lengths, prompts, queries = [numbers[start:end] for start, end in pairwise(edges)]
    if sum(counts) != num_windows or edges[-1] + sum(lengths) != len(numbers):
        raise ValueError("the array is no parcel: its parts do not add up")
    ends = accumulate(lengths, initial=edges[-1])
    windows = [
        Window(numbers[start:end], prompt, task, query)
        for (start, end), prompt, query in zip(pairwise(ends), prompts, queries, strict=True)
    ]
    return PackedWindows(Windows(windows, counts, weights), bool(is_array), tuple(positions) if has_positions else None)


def _unpack_one(numbers: list[int], task: Task | Literal[""], *, is_array: bool) -> PackedWindows:
    """One short text, the most frequent request: its parts have one number each."""
    count, weight, length, prompt, query, *ids = numbers[HEAD:]
    if count != 1 or length != len(ids):
        raise ValueError("the array is no parcel: its parts do not add up")
    return PackedWindows(Windows([Window(ids, prompt, task, query)], [1], [weight]), is_array, None)
