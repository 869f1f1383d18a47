"""sentence-transformers' `encode` of one folder's model, at its best batch size, in a process of its own: what models.py asks."""

import json
import sys
import time
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.worker import answer

BATCH_SIZES = (8, 32, 64)
REQUESTS_A_CALL = 4  # as many as the gateway's four clients have under way


class Encode:
    """`asked` has the model's folder, a dtype and requests: lists of texts."""

    def __init__(self, asked: dict[str, object]) -> None:
        dtype = getattr(torch, str(asked["dtype"]))
        self.model = SentenceTransformer(str(asked["model"]), device="cpu", local_files_only=True, model_kwargs={"dtype": dtype})
        requests: list[list[str]] = asked["requests"]  # type: ignore[assignment]
        starts = range(0, len(requests), REQUESTS_A_CALL)
        self.calls = [[text for texts in requests[start : start + REQUESTS_A_CALL] for text in texts] for start in starts]
        self.model.encode(self.calls[0][:8], show_progress_bar=False)
        sizes = [size for size in BATCH_SIZES if size <= len(self.calls[0])]
        self.by_batch_size = {size: self.texts_per_second(size, seconds=0) for size in sizes}
        self.batch_size = max(self.by_batch_size, key=self.by_batch_size.__getitem__)

    def texts_per_second(self, batch_size: int, seconds: float) -> float:
        """Of one call at least."""
        began, num_calls = time.perf_counter(), 0
        while not num_calls or time.perf_counter() - began < seconds:
            self.model.encode(self.calls[num_calls % len(self.calls)], batch_size=batch_size, show_progress_bar=False)
            num_calls += 1
        return num_calls * len(self.calls[0]) / (time.perf_counter() - began)

    def bulk(self, seconds: float) -> dict[str, float]:
        return {"texts_per_second": self.texts_per_second(self.batch_size, seconds)}


if __name__ == "__main__":
    encode = Encode(json.loads(Path(sys.argv[1]).read_text()))
    answer({"bulk": encode.bulk}, batch_size=encode.batch_size, texts_per_second_by_batch_size=encode.by_batch_size)
