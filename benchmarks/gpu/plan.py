"""What a run is made of: the device, the models, how large, and until when."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from gateway.engine.encoder import Window
from gateway.engine.tokenizer import Tokenizer

STORY = (
    "The ferry left at nine with forty passengers, two dogs and a piano that nobody had booked. By noon the wind had turned; the "
    "captain, who had crossed this strait since 1987, wrote 'swell 2.5 m' into the log and had soup sent up. Éva répéta : « je "
    "n'ai pas peur », 船は揺れた, and somebody began to play. `for (i = 0; i < n; ++i) total += price[i] * 1.19;` was what the "
    "student by the window typed. Nothing of this is in any probe! Is it? Half past four: land, a lighthouse, 17 gulls, rain. "
)


class Skipped(Exception):
    """A check that this machine cannot make; its text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`minilm` is the folder of real weights, in whatever precision. `is_small` is for proving the program, not for figures."""

    device: str
    minilm: Path
    scratch: Path
    is_small: bool
    deadline: float = field(default_factory=lambda: time.monotonic() + 420)

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def first_device(self) -> str:
        return "cuda:0" if self.is_cuda else "cpu"

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


def held_out(tokenizer: Tokenizer, max_tokens: int) -> list[Window]:
    """Windows of ten tokens to as many as a model reads, whose texts are no probes."""
    ids = tokenizer.fast.encode(STORY * 40, add_special_tokens=False).ids
    room = max_tokens - tokenizer.num_special
    lengths = sorted({min(length, room) for length in (8, 15, 17, 40, 61, 100, 150, room - 1, room)})
    return [Window(tokenizer.with_special(ids[5 * length : 6 * length])) for length in lengths]


def encoded(folder: Path, windows: list[Window]) -> NDArray[np.float32]:
    """What sentence-transformers gives for them in float32 on the CPU, each alone. Shape (n, dimensions)."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    rows = []
    for window in windows:
        ids = torch.tensor([window.token_ids])
        with torch.inference_mode():
            rows.append(model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"].float().numpy()[0])
    return np.stack(rows)
