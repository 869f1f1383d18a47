"""Makes the 8-bit network of a model in the compiling child, and judges it by texts that did not calibrate it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.config import LimitSettings
from gateway.engine.calibration_texts import CalibrationTexts, built_in_texts, read_texts
from gateway.engine.encoder import Encoder, Window
from gateway.engine.fidelity import UNFAITHFUL
from gateway.engine.int8 import refuse_int8_of
from gateway.engine.preprocessor import Preprocessor
from gateway.engine.quantizer import quantize
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import OperatorError

NEAREST = 10
# What stays out of 8 bits, of the multiplications: the layers that lose most. Each per cent costs some 0.4 % of the speed.
MAX_LEFT = {"int8": 0.17, "int8-fast": 0.0}
# The share of the ten nearest that vectors in 8 bits must keep. Below it a search finds others than it should.
MIN_KEPT = {"int8": 0.94, "int8-fast": 0.9}


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Texts that did not calibrate the network, and their vectors in float32, of shape (texts, dimensions).

    `digest` is that of all texts.
    """

    windows: list[Window]
    rows: NDArray[np.float32]
    digest: str

    def judge(self, encoder: Encoder) -> tuple[float, str]:
        """The share of the ten nearest that the encoder's vectors keep, and the reason why they are too few; "" if they are not."""
        rows = np.concatenate([encoder.embed([window]) for window in self.windows])
        kept = nearest_kept(self.rows, rows)
        minimum = MIN_KEPT[encoder.info.precision]
        if kept < minimum:
            return kept, f"in {encoder.info.precision} it keeps {kept:.1%} of the ten nearest, where {minimum:.0%} are the least"
        return kept, ""


def quantized(  # noqa: PLR0913 - the last two are named
    network: Any, reason: str, reference: Any, tokenizer: Tokenizer, *, precision: str, texts: str
) -> tuple[Any, HeldOut]:
    """The network in 8 bits, calibrated by the file `texts` or else the built-in ones, and the texts to judge it by.

    Raises OperatorError for a model that is no embedder, one that OpenVINO did not convert, for `reason`, and a file of no
    use.
    """
    refuse_int8_of(reference.info.network.kind, precision)
    if network is None:
        raise OperatorError(f"precision '{precision}' is for models that OpenVINO compiles: {reason}", category=UNFAITHFUL)
    calibration: CalibrationTexts = read_texts(Path(texts)) if texts else built_in_texts()
    calibrating, judging = (_windows(each, reference, tokenizer) for each in (calibration.calibrating, calibration.held_out))
    if not calibrating or len(judging) <= NEAREST:
        raise OperatorError(f"precision '{precision}': the model reads too few tokens of the texts that should calibrate it")
    made = quantize(network, calibrating, network=reference.info.network, max_left=MAX_LEFT[precision])
    return made, HeldOut(judging, np.concatenate([reference.embed([window]) for window in judging]), calibration.digest)


def nearest_kept(expected: NDArray[np.float32], rows: NDArray[np.float32]) -> float:
    """The mean share of each text's ten nearest others by `expected` that are so by `rows` too; both are (texts, dimensions)."""
    pairs = zip(_nearest(expected), _nearest(rows), strict=True)
    return float(np.mean([len(set(left) & set(right)) / NEAREST for left, right in pairs]))


def _nearest(rows: NDArray[np.float32]) -> NDArray[np.intp]:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -math.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]


def _windows(texts: Sequence[str], reference: Any, tokenizer: Tokenizer) -> list[Window]:
    """The first window of each text, as the preprocessor cuts it. Skips those of which the model reads nothing."""
    preprocessor = Preprocessor(reference.info.network, tokenizer, prompts={}, rule="end", limits=LimitSettings())
    prompt = preprocessor.default_prompt
    contents = [tokenizer.fast.encode(prompt.text + text, add_special_tokens=False).ids for text in texts]
    return [window for content in contents for window in preprocessor.split_windows(content, prompt, "end")[:1] if len(window)]
