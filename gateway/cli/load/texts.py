"""The texts of the load: generated English sentences, or the lines of a file, each made unique."""

import zlib
from collections.abc import Sequence
from itertools import count, cycle, islice
from pathlib import Path

from gateway.errors import OperatorError

NUM_SENTENCES = 1024
# The number of parts of a sentence, by its index: 16 to 110 of MiniLM's tokens with the label, 40 on average, as in prose.
NUM_PARTS = (1, 3, 2, 5, 3, 12, 2, 4)
SUBJECTS = (
    "The night porter", "A retired surveyor", "My neighbour's eldest daughter", "The crew of the ferry", "An apprentice baker",
    "The choir's only bass", "A patient gardener", "The new librarian", "Somebody from the tax office", "The watchmaker",
    "A committee of seven", "The lighthouse keeper",
)  # fmt: skip
DEEDS = (
    "carried a crate of lemons", "repaired the brass telescope", "counted the empty chairs twice", "wrote a letter of complaint",
    "painted the garden gate blue", "lost a game of draughts", "measured the depth of the well", "sold three copper kettles",
    "taught a parrot to whistle", "drew a map of the cellars", "weighed every sack of barley", "hid the spare key",
)  # fmt: skip
PLACES = (
    "to the upper floor of the mill", "behind the old customs house", "at the far end of the harbour", "beside a frozen canal",
    "in a valley without a road", "on the roof of the town hall", "under the second bridge", "near the botanical garden",
    "in the waiting room of the station", "halfway up the southern slope", "between two rows of poplars",
    "across the market square",
)  # fmt: skip
TIMES = (
    "before anyone had opened the shutters", "while the kettle was still warm", "on the last Thursday of October",
    "an hour after the storm had passed", "as soon as the bells fell silent", "during the longest drought in memory",
    "on a morning of thin yellow fog", "when the tide was at its lowest", "in the week of the harvest fair",
    "just as the lamps were being lit", "for the first time in eleven years", "until the batteries gave out",
)  # fmt: skip
REASONS = (
    "because the instructions were printed in Latin", "since nobody else had brought a ladder",
    "because a promise had been made to the mayor", "as the insurance would not pay for the damage",
    "because the orchestra needed a quiet room", "since the bridge could bear no more than two tonnes",
    "because the recipe asked for rain water", "as every other shop was closed for inventory",
    "because the goats had eaten the programme", "since the glass was thinner than it looked",
    "because the museum paid by the kilogram", "as the argument had gone on for too long",
)  # fmt: skip
AFTERMATHS = (
    "and was thanked with a jar of honey", "and the newspaper printed a correction", "and the whole street came out to watch",
    "and a small brown dog followed them home", "and the price of candles rose at once", "and the clock has been right ever since",
    "and two of the witnesses fell asleep", "and the ink had not dried by supper", "and a second attempt was quietly planned",
    "and the neighbours agreed to share the cost", "and the wind carried the sound for miles", "and the harvest was better for it",
)  # fmt: skip
DOUBTS = (
    "although the minutes of the meeting say otherwise", "though none of the photographs came out",
    "although it cost more than a new one", "though the weather had been forecast correctly",
    "although the guidebook calls the place dull", "though the measurements differ by a finger's breadth",
    "although a permit would have been enough", "though only the cook remembers it that way",
    "although the paint was still wet", "though hardly anyone reads that column",
    "although the last train had already left", "though the receipt was never found",
)  # fmt: skip
AFTER_THE_SUBJECT = (DEEDS, PLACES, TIMES, REASONS, AFTERMATHS, DOUBTS)
WITH_A_COMMA = (AFTERMATHS, DOUBTS)


class Texts:
    """Cycles through texts in order. With a `label`, each begins with that and a unique number.

    The label comes first: otherwise a server with a prefix cache would save most of the work.
    """

    def __init__(self, texts: Sequence[str], *, label: str | None) -> None:
        self.texts = cycle(texts)
        self.label = label
        self.numbers = count(1)

    def take(self, num_texts: int) -> list[str]:
        taken = islice(self.texts, num_texts)
        return list(taken) if self.label is None else [f"{self.label}-{next(self.numbers)}: {text}" for text in taken]


def sentences() -> list[str]:
    return [sentence(number) for number in range(NUM_SENTENCES)]


def sentence(number: int) -> str:
    """The sentence of this number, always the same."""
    text = ""
    for part in range(NUM_PARTS[number % len(NUM_PARTS)]):
        phrases = AFTER_THE_SUBJECT[part % len(AFTER_THE_SUBJECT)]
        if phrases is DEEDS:
            text += (". " if text else "") + choose(SUBJECTS, number, part)
        text += (", " if phrases in WITH_A_COMMA else " ") + choose(phrases, part, number)
    return text + "."


def choose(phrases: Sequence[str], *numbers: int) -> str:
    return phrases[zlib.crc32(repr(numbers).encode()) % len(phrases)]


def lines(path: Path) -> list[str]:
    """The file's lines that are not blank. Raises OperatorError if there are none."""
    try:
        found = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8 text") from None
    if not found:
        raise OperatorError(f"{path} has no line with a text")
    return found
