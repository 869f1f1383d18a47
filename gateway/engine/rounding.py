"""GPTQ: second-order rounding of a linear layer's weights to 8 bits, after its inputs have been given 8-bit codes.

Weights are rounded one channel after another. The error of each is made up for by the channels that are not rounded yet, as far as
the inputs allow: those that were seen, not those that are possible. Source: Frantar et al., "GPTQ", arXiv 2210.17323, algorithm 1,
with its order by the size of the inputs ("act-order").

With all-MiniLM-L6-v2 plain rounding of the feed-forward layers costs 3 to 40 times as much cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_CODE = 255  # of an input, an unsigned byte
MAX_WEIGHT = 127
DAMPING = 0.01  # of the mean of the diagonal: what was never seen together is not made up for
BLOCK = 128  # channels whose corrections to those after the block are applied at once
# How far a channel's scale follows its own range: 0 is one scale for all channels, 1 a scale for each. At 1 weights take over the
# spread of the inputs and lose by it; at 0 a few wide channels leave the others a handful of codes.
SMOOTHING = 0.85
MIN_RANGE = 1e-4
MANY = 2048

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class QuantizedInput:
    """An input x has the code (x - lowest) / step, rounded and cut to 0 and 255. Both have the shape (channels,)."""

    lowest: Floats
    step: Floats

    def codes(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The codes of `inputs`, shape (tokens, channels), as float32."""
        codes: NDArray[np.float32] = np.clip(np.rint((inputs - self.lowest) / self.step), 0, MAX_CODE).astype(np.float32)
        return codes


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """`codes`, int8 of shape (outputs, channels), times `step` of each output, are the weights of the input's codes.

    `bias`, shape (outputs,), is added to the layer's own.
    """

    codes: NDArray[np.int8]
    step: Floats
    bias: Floats


def quantize_input(lowest: Floats, highest: Floats) -> QuantizedInput:
    """The scales for channels of these ranges, both of shape (channels,)."""
    width = np.maximum(highest - lowest, MIN_RANGE)
    width_used = width.max() ** (1 - SMOOTHING) * width**SMOOTHING
    return QuantizedInput((lowest + highest - width_used) / 2, width_used / MAX_CODE)


class Moments:
    """The sums over all tokens of a layer's inputs and of their codes.

    Codes are kept until there are many: a product of a few tokens' takes as long as one of MANY, as it is the sums that are moved.
    """

    def __init__(self, scales: QuantizedInput) -> None:
        num_channels = len(scales.step)
        self.scales = scales
        self.count = 0
        self.input_total = np.zeros(num_channels)
        self.code_total = np.zeros(num_channels)
        self.products = np.zeros((num_channels, num_channels), dtype=np.float32)
        self.kept: list[NDArray[np.float32]] = []

    def add(self, inputs: NDArray[np.float32]) -> None:
        """`inputs` has the shape (tokens, channels)."""
        codes = self.scales.codes(inputs)
        self.count += len(codes)
        self.input_total = self.input_total + inputs.sum(axis=0)
        self.code_total = self.code_total + codes.sum(axis=0)
        self.kept.append(codes)
        if sum(map(len, self.kept)) >= MANY:
            self._multiply()

    def _multiply(self) -> None:
        codes = np.concatenate(self.kept) if self.kept else np.zeros((0, len(self.products)), dtype=np.float32)
        self.products += codes.T @ codes
        self.kept.clear()

    def covariance(self) -> NDArray[np.float64]:
        """The mean product of two channels' codes, each less its mean, with damping. Shape (channels, channels)."""
        self._multiply()
        mean = self.code_total / self.count
        found: NDArray[np.float64] = self.products.astype(np.float64) / self.count - np.outer(mean, mean)
        damping = max(DAMPING * float(np.trace(found)) / len(found), float(np.finfo(np.float32).tiny))
        found += damping * np.eye(len(found))
        return found


def round_linear(weights: Sequence[NDArray[np.float32]], moments: Moments) -> list[QuantizedLinear]:
    """Rounds the weights of layers with one input, each (outputs, channels). The means of their outputs stay as they were."""
    joined = np.concatenate(weights)
    scaled = joined.astype(np.float64) * moments.scales.step
    step = np.maximum(np.abs(scaled).max(axis=1), np.finfo(np.float32).tiny) / MAX_WEIGHT
    codes = _gptq(scaled / step[:, None], moments.covariance())
    bias = joined @ (moments.input_total / moments.count) - (codes * step[:, None]) @ (moments.code_total / moments.count)
    ends = np.cumsum([len(each) for each in weights])[:-1]
    parts = (np.split(each, ends) for each in (codes.astype(np.int8), step, bias))
    return [QuantizedLinear(*part) for part in zip(*parts, strict=True)]


def _gptq(weights: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounds `weights`, in units of the codes, to whole numbers."""
    order = np.argsort(-np.diag(covariance))
    upper = np.linalg.cholesky(np.linalg.inv(covariance[np.ix_(order, order)])).T
    left, codes = weights[:, order], np.empty_like(weights)
    for start in range(0, len(order), BLOCK):
        end = min(start + BLOCK, len(order))
        errors = np.empty((len(left), end - start))
        for channel in range(start, end):
            codes[:, channel] = np.clip(np.rint(left[:, channel]), -MAX_WEIGHT, MAX_WEIGHT)
            error = (left[:, channel] - codes[:, channel]) / upper[channel, channel]
            left[:, channel:end] -= np.outer(error, upper[channel, channel:end])
            errors[:, channel - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    codes[:, order] = codes.copy()
    return codes
