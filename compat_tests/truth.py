"""Asks reference.py, which runs in the gateway's environment, and remembers what it said."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat_tests.process import COMMAND

PYTHON = COMMAND.with_name("python")
SCRIPT = Path(__file__).with_name("reference.py")
TOLERANCE = 1e-5  # a component

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Vector = Vectors


class Truth:
    """sentence-transformers' own vectors and token counts."""

    def __init__(self, folder: Path) -> None:
        self.log_file = folder / "reference.log"
        self.known: dict[tuple[str, str], tuple[Vector, int]] = {}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
            )

    def vectors(self, texts: Sequence[str], *, long_input: str = "chunk") -> Vectors:
        """Shape (n, 384), float32."""
        self.learn(texts, long_input)
        found: Vectors = np.stack([self.known[text, long_input][0] for text in texts])
        return found

    def vector(self, text: str, *, long_input: str = "chunk") -> Vector:
        return np.asarray(self.vectors([text], long_input=long_input)[0])

    def num_tokens(self, *texts: str) -> int:
        """What `usage` must say of a request with these texts."""
        self.learn(texts, "chunk")
        return sum(self.known[text, "chunk"][1] for text in texts)

    def learn(self, texts: Sequence[str], long_input: str) -> None:
        unknown = list(dict.fromkeys(text for text in texts if (text, long_input) not in self.known))
        if not unknown:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"texts": unknown, "long_input": long_input}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the reference died:\n{self.log_file.read_text(encoding='utf-8')}"
        answer = json.loads(line)
        vectors = np.asarray(answer["vectors"], dtype=np.float32)
        for text, vector, num_tokens in zip(unknown, vectors, answer["num_tokens"], strict=True):
            self.known[text, long_input] = (vector, num_tokens)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)


def assert_close(actual: Any, expected: Any) -> None:
    """The same vector or vectors, to 1e-5 a component."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape
    worst = float(np.abs(actual - expected).max())
    assert worst <= TOLERANCE, f"worst component is off by {worst:.2e}"


def shortened(vectors: Vectors, dimensions: int) -> Vectors:
    """The first components, of length 1 again: what `dimensions` means."""
    cut = vectors[..., :dimensions].astype(np.float64)
    return np.asarray(cut / np.linalg.norm(cut, axis=-1, keepdims=True), dtype=np.float32)
