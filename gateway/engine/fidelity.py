"""How faithful a compiled model is: the worst cosine to sentence-transformers in float32 over texts of every kind."""

import numpy as np
from numpy.typing import NDArray

from gateway.engine.encoder import Encoder, EncoderInfo, Window
from gateway.engine.tokenizer import Tokenizer

MIN_COSINE = 0.999  # below it, reduced precision is refused

PROBES = (
    "a",
    "?",
    " ",
    "Hello, world",
    "The capital of France is Paris.",
    "How do I reset my password?",
    "An attention mask tells the network which positions are padding and must not be looked at.",
    "In 1969 two people walked on the moon while a third, Michael Collins, circled above them, alone on the far side.",
    "error: expected ';' before '}' token (line 42, column 7)",
    "def area(r: float) -> float:\n    return 3.14159 * r ** 2  # square units",
    "SELECT name, COUNT(*) FROM orders WHERE total >= 99.95 GROUP BY name ORDER BY 2 DESC;",
    '{"id": 7, "tags": ["red", "blue"], "price": 1.5e3, "ok": null}',
    "https://example.org/a/b?c=d&e=%20f#g",
    "3.14159265358979 -42 1e-9 0xDEADBEEF 1,000,000.00",
    "Die Größe des Gefäßes überrascht; naïve Façade, coöperate, žluťoučký kůň.",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "Η γρήγορη αλεπού πηδά πάνω από τον σκύλο.",
    "敏捷的棕色狐狸跳过了懒狗。今天天气很好。",
    "素早い茶色の狐がのろまな犬を飛び越える。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "השועל החום המהיר קופץ מעל הכלב העצלן",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "🙂👍🏽🇫🇷 emoji 👩‍👩‍👧 and \u0000 odd \ufffd signs \u200b\u202e",
    "word " * 60,
    "Every sentence of a long document adds a little to its meaning, and the model must weigh them all. " * 12,
)


def worst_cosine(encoder: Encoder, reference: Encoder, tokenizer: Tokenizer) -> float:
    """Over the probes, one at a time and all together in batches of eight."""
    windows = probe_windows(encoder.info, tokenizer)
    expected = np.concatenate([reference.embed([window]) for window in windows])
    alone = np.concatenate([encoder.embed([window]) for window in windows])
    together = np.concatenate([encoder.embed(windows[start : start + 8]) for start in range(0, len(windows), 8)])
    return float(min(cosines(alone, expected).min(), cosines(together, expected).min()))


def probe_windows(info: EncoderInfo, tokenizer: Tokenizer) -> list[Window]:
    """Each probe cut to what the model reads. Where prompts are left out, the first third of every other probe is taken for one."""
    room = info.max_tokens - tokenizer.num_special
    ids = [tokenizer.with_special(tokenizer.fast.encode(probe, add_special_tokens=False).ids[:room]) for probe in PROBES]
    return [Window(each, len(each) // 3 if info.leaves_prompt_out and number % 2 else 0) for number, each in enumerate(ids)]


def cosines(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row by row. NaN, which no comparison would notice, becomes -1."""
    left, right = rows.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: NDArray[np.float64] = np.nan_to_num((left * right).sum(axis=1) / lengths, nan=-1.0)
    return values
