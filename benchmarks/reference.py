"""What the gateway is held against: sentence-transformers' `encode`, with the same texts, at its best batch size."""

import itertools
import statistics
import sys
import time
from pathlib import Path

from sentence_transformers import SentenceTransformer

from benchmarks.corpus import MODEL, Corpus, read
from benchmarks.replies import keep_expected
from benchmarks.worker import answer
from gateway.testing.folder import folder_of

BATCH_SIZES = (8, 32, 64)
REQUESTS_A_CALL = 4  # as many as the gateway's four clients have under way


class Reference:
    def __init__(self, corpus: Corpus) -> None:
        self.model = SentenceTransformer(str(folder_of(MODEL, download=False)), device="cpu", local_files_only=True)
        calls = [corpus.requests[start : start + REQUESTS_A_CALL] for start in range(0, len(corpus.requests), REQUESTS_A_CALL)]
        self.calls = itertools.cycle([list(itertools.chain.from_iterable(call)) for call in calls])
        self.short = itertools.cycle(corpus.short)
        self.texts_per_second(BATCH_SIZES[0], seconds=0)  # warm-up
        self.by_batch_size = {size: self.texts_per_second(size, seconds=0) for size in BATCH_SIZES}
        self.batch_size = max(self.by_batch_size, key=self.by_batch_size.__getitem__)

    def texts_per_second(self, batch_size: int, seconds: float) -> float:
        """Of one call at least."""
        began, num_texts = time.perf_counter(), 0
        while not num_texts or time.perf_counter() - began < seconds:
            call = next(self.calls)
            self.model.encode(call, batch_size=batch_size, show_progress_bar=False)
            num_texts += len(call)
        return num_texts / (time.perf_counter() - began)

    def bulk(self, seconds: float) -> dict[str, float]:
        return {"texts_per_second": self.texts_per_second(self.batch_size, seconds)}

    def single(self, seconds: float) -> dict[str, float]:
        ends = time.perf_counter() + seconds
        taken: list[float] = []
        while not taken or time.perf_counter() < ends:
            began = time.perf_counter()
            self.model.encode([next(self.short)], show_progress_bar=False)
            taken.append(time.perf_counter() - began)
        return {"p50_ms": 1000 * statistics.median(taken)}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    sentences = read(file)
    reference = Reference(sentences)
    keep_expected(reference.model.encode(sentences.requests[0], show_progress_bar=False), file)
    answer(
        {"bulk": reference.bulk, "single": reference.single},
        batch_size=reference.batch_size,
        texts_per_second_by_batch_size=reference.by_batch_size,
    )
