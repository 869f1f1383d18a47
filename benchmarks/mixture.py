"""Requests of every shape: from one text to a hundred, each from a word to a page."""

import itertools
import math

from benchmarks.corpus import Corpus

NUM_REQUESTS = 1024
MAX_INPUTS, MAX_WORDS = 100, 600
INPUTS_STEP, WORDS_STEP = 0.7549, 0.6180  # multiples of these, without their whole parts, fill 0..1 evenly and never in a pattern


def mixture(corpus: Corpus) -> list[list[str]]:
    """The same at every run. Few are large: sizes are spread evenly over their orders of magnitude."""
    words = itertools.cycle(" ".join(itertools.chain.from_iterable(corpus.requests)).split())
    sizes = (spread(number * WORDS_STEP, MAX_WORDS) for number in itertools.count(1))
    counts = (spread(number * INPUTS_STEP, MAX_INPUTS) for number in range(1, NUM_REQUESTS + 1))
    return [[" ".join(itertools.islice(words, next(sizes))) for _ in range(count)] for count in counts]


def spread(number: float, largest: int) -> int:
    """1 to `largest`, by the fraction of `number`."""
    return round(math.exp(number % 1 * math.log(largest)))
