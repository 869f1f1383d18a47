"""The texts that everybody gets, and how many: short ones, mixed ones of 20 to 600 characters, and chunks as retrieval has."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.corpus import INPUTS, Corpus, model_folder
from benchmarks.peers.fixed_work import Work, work_of

CHUNK_TOKENS = range(200, 251)
CHUNKS_A_REQUEST = 8
NUM_CHUNKS = 96
AMOUNTS = {"mixed": 1024, "chunks": 96, "crowd": 512, "alone short": 100, "alone mixed": 100, "alone chunks": 30}  # texts a round
JUDGED = {"short": 32, "mixed": 64, "chunks": 16}  # texts whose vectors are held against encode's


@dataclass(frozen=True)
class Workload:
    """`texts` by kind, each list as long as any amount needs. `amounts` are numbers of texts."""

    texts: dict[str, list[str]]
    amounts: dict[str, int]
    folder: Path

    @property
    def file(self) -> Path:
        """All texts, for the libraries."""
        path = self.folder / "texts.json"
        if not path.exists():
            path.write_text(json.dumps(self.texts), encoding="utf-8")
        return path

    def bulk(self, kind: str) -> Work:
        size = CHUNKS_A_REQUEST if kind == "chunks" else INPUTS
        texts = self.texts[kind]
        requests = [texts[start : start + size] for start in range(0, len(texts) - size + 1, size)]
        return work_of(self.folder / f"bulk-{kind}.jsonl", requests, max(1, self.amounts[kind] // size))

    def single(self, kind: str, num_requests: int) -> Work:
        return work_of(self.folder / f"single-{kind}.jsonl", self.texts[kind], num_requests)


def workload(corpus: Corpus, folder: Path, scale: float) -> Workload:
    mixed = list(itertools.chain.from_iterable(corpus.requests))
    texts = {"short": corpus.short[:512], "mixed": mixed, "chunks": chunks(mixed)}
    return Workload(texts, {name: max(4, round(scale * amount)) for name, amount in AMOUNTS.items()}, folder)


def chunks(sentences: list[str]) -> list[str]:
    """Sentences one after another, until the model's tokenizer counts 200 to 250 tokens; what would have more begins anew."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found: list[str] = []
    chunk = ""
    for sentence in sentences:
        longer = f"{chunk} {sentence}".strip()
        num_tokens = len(tokenizer.encode(longer).ids)
        if num_tokens in CHUNK_TOKENS:
            found.append(longer)
        chunk = longer if num_tokens < CHUNK_TOKENS.start else ""
        if len(found) == NUM_CHUNKS:
            return found
    raise AssertionError(f"only {len(found)} chunks in the corpus")
