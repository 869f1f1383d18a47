"""Asks cross_encoder.py, which runs in the gateway's environment, for a small reranker's files and its scores."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat_tests.truth import PYTHON

SCRIPT = Path(__file__).with_name("cross_encoder.py")
RERANKER = "small-reranker"
TOLERANCE = 1e-4  # a logit, in float32

Logits = np.ndarray[Any, np.dtype[np.float32]]


class Scorer:
    """CrossEncoder's own scores and token counts. `model` is the folder of its files."""

    def __init__(self, folder: Path) -> None:
        self.model = folder / RERANKER
        self.log_file = folder / "scorer.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, SCRIPT, self.model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
            )
        self.ask("a", ["b"])  # once it answers, the files are there

    def ask(self, query: str, documents: Sequence[str]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"query": query, "documents": list(documents)}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the scorer died:\n{self.log_file.read_text(encoding='utf-8')}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def logits(self, query: str, documents: Sequence[str]) -> Logits:
        return np.asarray(self.ask(query, documents)["logits"], dtype=np.float32)

    def scores(self, query: str, documents: Sequence[str]) -> Logits:
        """Sigmoids, from 0 to 1."""
        return np.asarray(1 / (1 + np.exp(-self.logits(query, documents).astype(np.float64))), dtype=np.float32)

    def num_tokens(self, query: str, documents: Sequence[str]) -> int:
        return int(self.ask(query, documents)["num_tokens"])

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)


def assert_ranked(results: Sequence[tuple[int, float]], expected: Logits, *, top_n: int | None = None) -> None:
    """`results` are (index, score), the best first: of all documents or the best `top_n`, each as expected to 1e-4."""
    order = np.argsort(-expected, kind="stable")[:top_n].tolist()
    assert [index for index, _ in results] == order
    assert np.abs(np.array([score for _, score in results]) - expected[order]).max() < TOLERANCE
