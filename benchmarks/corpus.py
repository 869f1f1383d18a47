"""Real English sentences, of the documentation of installed packages: the same in the same order wherever versions are the same."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from tokenizers import Tokenizer

from gateway.testing.folder import folder_of

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DOCUMENTED = (
    "click",
    "huggingface_hub",
    "litestar",
    "networkx",
    "numpy",
    "scikit-learn",
    "scipy",
    "sqlalchemy",
)  # read for docstrings
NUM_SENTENCES = 4096
INPUTS = 64  # of a request
MIN_CHARS, MAX_CHARS = 20, 600
THIN_BELOW_CHARS, THIN_TO = 170, 15
SHORT_TOKENS = range(24, 41)
MEAN_TOKENS = range(35, 48)
DOCSTRING = re.compile(r'"""(.+?)"""', re.DOTALL)
MARKUP = re.compile(r"`+|\*\*|:[a-z]+:(?=`)|(?<=\])\([^)]*\)|[\[\]]")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
SENTENCE = re.compile(r"[A-Z][a-zA-Z'-]*,? [\x20-\x7e]*[a-z)][.!?]")
NO_PROSE = re.compile(r">>>|::|--|\.\. | : | \* |[|=<>{}\\_#~]{2}|  ")


@dataclass(frozen=True)
class Corpus:
    """`requests` are lists of 64 sentences, each list of about the same lengths; `short` are sentences of about 32 tokens."""

    requests: list[list[str]]
    short: list[str]
    mean_tokens: float
    mean_short_tokens: float
    digest: str

    @property
    def about(self) -> dict[str, float | int | str]:
        return {
            "sentences": sum(map(len, self.requests)),
            "mean_tokens": round(self.mean_tokens, 1),
            "mean_short_tokens": round(self.mean_short_tokens, 1),
            "digest": self.digest,
        }


@cache
def model_folder() -> Path:
    """The weights all sides read."""
    return folder_of(MODEL, download=False)


def corpus() -> Corpus:
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = sorted({text for part in documentation() for text in sentences(part)}, key=digest)[:NUM_SENTENCES]
    assert len(texts) == NUM_SENTENCES, f"only {len(texts)} sentences in the installed packages' documentation"
    counts = {text: len(encoding.ids) for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)}
    short = [text for text in texts if counts[text] in SHORT_TOKENS]
    mean_tokens = sum(counts.values()) / len(counts)
    assert round(mean_tokens) in MEAN_TOKENS, f"the sentences have {mean_tokens:.1f} tokens on average"
    return Corpus(
        requests=dealt(texts, counts),
        short=short,
        mean_tokens=mean_tokens,
        mean_short_tokens=sum(map(counts.__getitem__, short)) / len(short),
        digest=digest("\n".join(texts)),
    )


def dealt(texts: list[str], counts: dict[str, int]) -> list[list[str]]:
    """Dealt like cards, sorted by length: any few requests stand for all, so sides that get through different numbers compare."""
    num_requests = len(texts) // INPUTS
    by_length = sorted(texts, key=counts.__getitem__)
    rows = [by_length[start : start + num_requests] for start in range(0, len(texts), num_requests)]
    hands = zip(*(row if number % 2 else reversed(row) for number, row in enumerate(rows)), strict=True)
    return [sorted(hand, key=digest) for hand in sorted(hands, key=lambda hand: digest(hand[0]))]


def documentation() -> Iterator[str]:
    for distribution in distributions():
        metadata = distribution.metadata
        is_read_for_docstrings = metadata["Name"].lower() in DOCUMENTED
        yield str(metadata.get_payload() or "")
        for file in distribution.files or ():
            if file.suffix in {".md", ".rst"} and ".dist-info" not in str(file):
                yield file.read_text(encoding="utf-8")
            elif file.suffix == ".py" and is_read_for_docstrings and "tests" not in file.parts:
                yield from DOCSTRING.findall(file.read_text(encoding="utf-8"))


def sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        prose = MARKUP.sub("", " ".join(line.strip() for line in paragraph.splitlines()))
        for sentence in SENTENCE_END.split(prose):
            is_whole = SENTENCE.fullmatch(sentence) and not NO_PROSE.search(sentence)
            if is_whole and MIN_CHARS <= len(sentence) <= MAX_CHARS and is_kept(sentence):
                yield sentence


def is_kept(sentence: str) -> bool:
    """One in fifteen of the sentences below 170 characters: with all of them the mean would be 27 tokens, not 41."""
    return len(sentence) >= THIN_BELOW_CHARS or int(digest(sentence), 16) % THIN_TO == 0


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(sentences: Corpus, path: Path) -> Path:
    """For the other processes, which would take as long to gather the same."""
    path.write_text(json.dumps(asdict(sentences)), encoding="utf-8")
    return path


def read(path: Path) -> Corpus:
    return Corpus(**json.loads(path.read_text(encoding="utf-8")))
