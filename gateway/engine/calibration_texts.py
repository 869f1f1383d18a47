"""The texts that calibrate an 8-bit model, those that judge it, and the file that an operator gives in their place.

Three of four texts calibrate. The fourth is held out: the loss that a manifest states is that of texts unknown to
the quantiser.
The built-in texts are sentences of this project's documentation and the texts of `calibration`, in twelve languages.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from gateway.embedding.fingerprint import digest
from gateway.engine.calibration import TEXTS
from gateway.errors import OperatorError

MIN_TEXTS, MAX_TEXTS = 128, 4096  # with fewer, ranges are those of a few words; more take longer, and change nothing
HELD_OUT_EVERY = 4
DIGEST_DIGITS = 8
BUILT_IN = "calibration_texts.txt"
JOINED = 12  # texts that make a long one: sentences alone would leave the far positions without a range
# Ranges must hold for odd inputs too: an input beyond them is cut.
ODD_TEXTS = (
    "b",
    "!",
    "...",
    "42",
    "ok",
    "Thanks!",
    "what",
    "☃ ☂ ☀ ★",
    "🎉🚀 ship it 🙏🏻",
    "ß ç ñ å ø ł",
    "北京",
    "東京タワー",
    "서울",
    "привет",
    "שלום",
    "مرحبا",
    "नमस्ते",
    "สวัสดี",
    "0x1F 1e-3 -7,5 99 %",
    "foo " * 40,
    "if (a[i] != b[j]) { return -1; }",
    "<p class='x'>&nbsp;</p>",
    "user@example.com +49 30 1234567",
    "C:\\Users\\x\\file.txt",
)


@dataclass(frozen=True)
class CalibrationTexts:
    """Distinct texts, in an order that does not depend on that of the file."""

    texts: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Identifies the texts: part of the fingerprint of a model that they calibrated."""
        return digest(self.texts)[:DIGEST_DIGITS]

    @property
    def calibrating(self) -> list[str]:
        """Three of four texts; the same joined, JOINED at a time; and odd ones."""
        texts = [text for number, text in enumerate(self.texts) if number % HELD_OUT_EVERY]
        joined = [" ".join(texts[start : start + JOINED]) for start in range(0, len(texts), JOINED)]
        return [*joined, *ODD_TEXTS, *texts]

    @property
    def held_out(self) -> list[str]:
        return list(self.texts[::HELD_OUT_EVERY])


def built_in_texts() -> CalibrationTexts:
    own = files(__package__).joinpath(BUILT_IN).read_text(encoding="utf-8")
    return _ordered([*own.splitlines(), *TEXTS])


def read_texts(path: Path) -> CalibrationTexts:
    """The texts of a file in UTF-8, one in each line; empty lines and repetitions do not count.

    Raises OperatorError if the file cannot be read, or has fewer than MIN_TEXTS of them. Of a longer one MAX_TEXTS are taken.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise OperatorError(f"the calibration texts in {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(
            f"the calibration texts in {path} are not UTF-8: a text file with one text in each line is wanted"
        ) from None
    texts = _ordered([line.strip() for line in lines])
    if len(texts.texts) < MIN_TEXTS:
        raise OperatorError(
            f"{path} has {len(texts.texts)} texts, and calibrating takes at least {MIN_TEXTS}: one in each line, each another,"
            " like those that will be embedded"
        )
    return texts


def _ordered(texts: list[str]) -> CalibrationTexts:
    return CalibrationTexts(tuple(sorted({text for text in texts if text}, key=digest)[:MAX_TEXTS]))
