"""A reranker's questions, and `CrossEncoder.predict` with the same pairs, at its best batch size.

The reranker has the size of cross-encoder/ms-marco-MiniLM-L6-v2 and random weights: its speed is that of any weights.
"""

import itertools
import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.corpus import Corpus, model_folder, read
from benchmarks.load import write_bodies
from benchmarks.program import GATEWAY, KEY, Program
from benchmarks.server import Server
from benchmarks.worker import answer

NAME = "reranker"
BATCH_SIZES = (8, 32, 64)
QUESTIONS_A_CALL = 4  # as many as the gateway's four clients have under way
HUNDRED = 100  # documents of so many tokens each
MAX_APART = 0.03

Question = tuple[str, list[str]]


def saved(folder: Path) -> Path:
    """Saves the reranker; returns its folder."""
    from gateway.testing.rerankers import minilm_reranker

    return minilm_reranker(folder, model_folder() / "tokenizer.json")


def program(reranker: Path, precision: str) -> Program:
    row = {"name": NAME, "source": str(reranker), "download": False, "precision": precision}
    return GATEWAY.configured(GATEWAY__MODELS=json.dumps([row]))


def questions(corpus: Corpus) -> list[Question]:
    """A short sentence with the 64 of a request."""
    return list(zip(itertools.cycle(corpus.short), corpus.requests, strict=False))


def hundreds(corpus: Corpus) -> list[Question]:
    """A short sentence with 100 documents of 100 tokens, special ones left out."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    text = " ".join(itertools.chain.from_iterable(corpus.requests))
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    starts = range(0, len(offsets) - HUNDRED + 1, HUNDRED)
    documents = [text[offsets[start][0] : offsets[start + HUNDRED - 1][1]] for start in starts]
    groups = [documents[start : start + HUNDRED] for start in range(0, len(documents) - HUNDRED + 1, HUNDRED)]
    return list(zip(corpus.short, groups, strict=False))


def bodies_file(path: Path, asked: list[Question]) -> Path:
    """One request body a line."""
    return write_bodies(path, map(body_of, asked))


def body_of(question: Question) -> dict[str, Any]:
    query, documents = question
    return {"model": NAME, "query": query, "documents": documents}


def refuse_other_scores(server: Server, question: Question, expected: list[float]) -> None:
    """Raises RuntimeError if the server's scores are not those of `predict`: a fast wrong answer has no speed."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/rerank", json.dumps(body_of(question)).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as reply:
        found = {row["index"]: row["relevance_score"] for row in json.load(reply)["results"]}
    worst = max(abs(found[index] - score) for index, score in enumerate(expected))
    if worst > MAX_APART:
        raise RuntimeError(f"scores are up to {worst:.3f} from those of predict")


class Reference:
    def __init__(self, corpus: Corpus, reranker: Path) -> None:
        from sentence_transformers import CrossEncoder

        self.model = CrossEncoder(str(reranker), device="cpu", local_files_only=True)
        asked = questions(corpus)
        self.expected = self.predict(asked[:1], BATCH_SIZES[0])
        calls = [asked[start : start + QUESTIONS_A_CALL] for start in range(0, len(asked), QUESTIONS_A_CALL)]
        self.calls = itertools.cycle(calls)
        self.hundreds = itertools.cycle(hundreds(corpus))
        self.by_batch_size = {size: self.pairs_per_second(size, seconds=0) for size in BATCH_SIZES}
        self.batch_size = max(self.by_batch_size, key=self.by_batch_size.__getitem__)

    def predict(self, asked: list[Question], batch_size: int) -> list[float]:
        pairs = [(query, document) for query, documents in asked for document in documents]
        scores: list[float] = self.model.predict(pairs, batch_size=batch_size, show_progress_bar=False).tolist()
        return scores

    def pairs_per_second(self, batch_size: int, seconds: float) -> float:
        """Of one call at least."""
        began, num_pairs = time.perf_counter(), 0
        while not num_pairs or time.perf_counter() - began < seconds:
            num_pairs += len(self.predict(next(self.calls), batch_size))
        return num_pairs / (time.perf_counter() - began)

    def bulk(self, seconds: float) -> dict[str, float]:
        return {"pairs_per_second": self.pairs_per_second(self.batch_size, seconds)}

    def hundred(self, seconds: float) -> dict[str, float]:
        ends = time.perf_counter() + seconds
        taken: list[float] = []
        while not taken or time.perf_counter() < ends:
            began = time.perf_counter()
            self.predict([next(self.hundreds)], self.batch_size)
            taken.append(time.perf_counter() - began)
        return {"p50_ms": 1000 * statistics.median(taken)}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    reference = Reference(read(file), file.parent / NAME / "whole")
    answer(
        {"bulk": reference.bulk, "hundred": reference.hundred},
        batch_size=reference.batch_size,
        pairs_per_second_by_batch_size=reference.by_batch_size,
        expected=reference.expected,
    )
