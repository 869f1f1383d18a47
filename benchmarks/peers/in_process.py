"""A library without a server, asked for one amount of work at a time: `python in_process.py LIBRARY FOLDER TEXTS`.

It runs in the library's own environment, so it imports nothing of ours. TEXTS is JSON: lists of texts by kind. Lines of JSON in,
lines of JSON out: first, that it is ready.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Embed = Callable[[list[str], int], Iterable[Any]]  # texts and a batch size to a row of numbers a text

BATCH_SIZES = (8, 32, 64)
TEXTS_A_CALL = 256  # as many as four clients of 64 have under way
MAX_PROBE_SECONDS = 5.0  # for all batch sizes


def sentence_transformers(folder: str) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    return lambda texts, size: model.encode(texts, batch_size=size, show_progress_bar=False)


def fastembed(folder: str) -> Embed:
    """`folder` has model.onnx beside the tokenizer; fastembed pools and normalises outside of it."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local/all-MiniLM-L6-v2"
    source = ModelSource(hf=name)
    TextEmbedding.add_custom_model(
        name, pooling=PoolingType.MEAN, normalization=True, sources=source, dim=384, model_file="model.onnx"
    )
    model = TextEmbedding(name, specific_model_path=folder)
    return lambda texts, size: list(model.embed(texts, batch_size=size))


def embed_anything(_: str) -> Embed:
    """candle. It takes names of the hub alone: the parent's HF_HOME is a cache of the hub that has the weights."""
    from embed_anything import EmbeddingModel, TextEmbedConfig, embed_query

    model = EmbeddingModel.from_pretrained_hf("sentence-transformers/all-MiniLM-L6-v2")
    configs = {size: TextEmbedConfig(batch_size=size) for size in BATCH_SIZES}
    return lambda texts, size: [row.embedding for row in embed_query(texts, embedder=model, config=configs[size])]


def model2vec(folder: str) -> Embed:
    """A row of a table a token, and their mean: no network at all."""
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(folder)
    return lambda texts, size: model.encode(texts, batch_size=size, use_multiprocessing=False)


LIBRARIES: dict[str, Callable[[str], Embed]] = {
    "sentence_transformers": sentence_transformers,
    "fastembed": fastembed,
    "embed_anything": embed_anything,
    "model2vec": model2vec,
}


class Library:
    def __init__(self, embed: Embed, texts: dict[str, list[str]]) -> None:
        self.embed = embed
        self.texts = texts
        self.batch_size = BATCH_SIZES[0]

    def vectors(self, kind: str, count: int) -> dict[str, Any]:
        rows = self.embed(self.texts[kind][:count], self.batch_size)
        return {"rows": [[float(number) for number in row] for row in rows]}

    def choose(self, kind: str, count: int) -> dict[str, Any]:
        """Takes the fastest batch size of those that were tried within the time."""
        seconds, began = {}, time.perf_counter()
        for size in BATCH_SIZES:
            if time.perf_counter() - began < MAX_PROBE_SECONDS:
                self.batch_size = size
                seconds[size] = self.bulk(kind, count)["seconds"]
        self.batch_size = min(seconds, key=seconds.__getitem__)
        return {"batch_size": self.batch_size}

    def bulk(self, kind: str, count: int) -> dict[str, Any]:
        texts = list(itertools.islice(itertools.cycle(self.texts[kind]), count))
        began = time.perf_counter()
        for start in range(0, count, TEXTS_A_CALL):
            list(self.embed(texts[start : start + TEXTS_A_CALL], self.batch_size))
        return {"seconds": time.perf_counter() - began}

    def alone(self, kind: str, count: int) -> dict[str, Any]:
        took = []
        for text in itertools.islice(itertools.cycle(self.texts[kind]), count):
            began = time.perf_counter()
            list(self.embed([text], self.batch_size))
            took.append(time.perf_counter() - began)
        return {"took": took}


def main() -> None:
    name, folder, file = sys.argv[1:]
    library = Library(LIBRARIES[name](folder), json.loads(Path(file).read_text(encoding="utf-8")))
    library.vectors("short", 1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(library, asked["do"])(asked["kind"], asked["count"])), flush=True)


if __name__ == "__main__":
    main()
