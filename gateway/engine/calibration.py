"""The range of an embedder's int8 and uint8 vectors: how large a component of its vectors becomes, over texts that are no probes.

One symmetric range holds for every dimension. So codes are proportional to components, and their dot product to the vectors' own.
With a range for each dimension, as sentence-transformers measures it, the dot product of codes kept 79 % of the ten nearest; with
one for all, 99 % (all-MiniLM-L6-v2, 2,700 documents). 16 texts found the same range as 64; 1,000 found one a fifth wider, with the
same recall, while ranges of each dimension by 64 texts clip 3 % of all components.

The bound is measured in float32 and rounded up to two digits. So machines, runtimes and precisions, whose vectors differ in the
last bits, agree on it, and with it on the id of the ranges.
"""

import math
from itertools import product

import numpy as np

from gateway.config import LimitSettings
from gateway.embedding.quantization import Ranges, ranges_of
from gateway.embedding.vectors import normalize_rows
from gateway.engine.encoder import Encoder, Window
from gateway.engine.preprocessor import Preprocessor
from gateway.engine.tokenizer import Tokenizer

DIGITS = 2
FORMS = (
    "{thing}",
    "How long does {thing} last?",
    "Yesterday a neighbour asked me about {thing}, and I had no good answer for him.",
    "{thing}: what it costs, where to find it, and who should better leave it alone",
    'log.warning("no {thing}", attempts=3)  # seen twice on Monday',
    "Dear Sir or Madam, we regret that {thing} you ordered in March cannot be delivered before the summer.",
)
THINGS = (
    "a wooden bridge",
    "the unpaid invoice",
    "fever in small children",
    "a sorted linked list",
    "winter wheat",
    "the violin sonata",
)
OTHER_TEXTS = (
    "Der Zug nach Lübeck hat wegen einer Weichenstörung zwanzig Minuten Verspätung.",
    "La boulangerie du coin ferme le mardi, sauf en décembre.",
    "El río creció tanto que tuvimos que dormir en la escuela.",
    "O gato dormiu em cima do teclado e apagou o relatório.",
    "Почтальон оставил посылку у соседей.",
    "这家餐厅的面条比昨天的好吃。",
    "駅前の本屋は来月閉店します。",
    "도서관은 일요일에 문을 닫습니다.",
    "أغلقت المدرسة أبوابها بسبب العاصفة.",
    "बारिश के बाद बाज़ार फिर से खुल गया।",
    "<li><a href='/cart'>3 items</a></li>",
    "x = sum(y**2 for y in range(10)) / 7.5",
)
TEXTS = (*(form.format(thing=thing) for form, thing in product(FORMS, THINGS)), *OTHER_TEXTS)


def bound_of(reference: Encoder, tokenizer: Tokenizer) -> float | None:
    """The smallest number of two digits that no component of the texts' vectors exceeds. `reference` computes in float32.

    The vectors have length 1. Returns None for a model of another kind, and one that reads no token of them or gives zeros.
    """
    windows = _windows(reference, tokenizer) if reference.info.network.kind == "embedder" else []
    if not windows:
        return None
    rows = np.concatenate([reference.embed([window]) for window in windows])
    largest = float(np.abs(normalize_rows(rows)).max(initial=0))
    return round_up(largest) if math.isfinite(largest) and largest > 0 else None


def round_up(number: float) -> float:
    """To DIGITS significant digits: 0.2041 becomes 0.21."""
    places = DIGITS - 1 - math.floor(math.log10(number))
    scale = 10.0**places
    return round(math.ceil(number * scale) / scale, places)


def ranges_within(bound: float | None, dimensions: int) -> Ranges | None:
    """The ranges from -bound to bound of every dimension; None without a bound."""
    return None if bound is None else ranges_of(np.full(dimensions, -bound), np.full(dimensions, bound))


def _windows(reference: Encoder, tokenizer: Tokenizer) -> list[Window]:
    """The first window of each text, as the preprocessor cuts it. Skips texts of which the model reads no token."""
    preprocessor = Preprocessor(reference.info.network, tokenizer, prompts={}, rule="end", limits=LimitSettings())
    prompt = preprocessor.default_prompt
    contents = [tokenizer.fast.encode(prompt.text + text, add_special_tokens=False).ids for text in TEXTS]
    return [window for content in contents for window in preprocessor.split_windows(content, prompt, "end") if len(window)]
