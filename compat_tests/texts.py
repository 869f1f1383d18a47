"""What is sent."""

MODEL = "all-MiniLM-L6-v2"
ALIASES = ["sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small"]
DIMENSIONS = 384
MAX_INPUTS = 2048

# Stands in what is sent, never in the server's log.
MARKER = "marmalade-zebrafinch-7c1d"

WORDS = [
    "river",
    "copper",
    "lantern",
    "orchard",
    "signal",
    "winter",
    "harbour",
    "marble",
    "engine",
    "violin",
    "desert",
    "ticket",
    "garden",
    "planet",
    "ribbon",
    "castle",
    "meadow",
    "thunder",
    "pencil",
    "island",
    "cotton",
    "mirror",
    "falcon",
    "bakery",
    "glacier",
    "walnut",
    "compass",
    "feather",
    "tunnel",
    "saffron",
    "quarry",
    "melody",
]


def prose(num_words: int, seed: int = 0) -> str:
    """Always the same words for the same arguments, and different ones for different seeds."""
    numbers = (seed * 7919 + place * place * 31 + place * 17 + place // 5 for place in range(num_words))
    return " ".join(WORDS[number % len(WORDS)] for number in numbers)


def many(num_texts: int) -> list[str]:
    """Short texts, no two alike."""
    return [f"{number} {prose(1, number)}" for number in range(num_texts)]


LONG = prose(700, seed=1)
VERY_LONG = "Žluťoučký kůň. 長い文章。 " + prose(2500, seed=2)

SAMPLES = {
    "plain": f"The quick brown fox jumps over the lazy dog. {MARKER}",
    "one letter": "a",
    "accents": "Příliš žluťoučký kůň úpěl ďábelské ódy à côté d'une forêt",
    "chinese": "机器学习模型将文本转换为向量",
    "japanese": "吾輩は猫である。名前はまだ無い。",
    "arabic": "مرحبا بالعالم، هذا نص من اليمين إلى اليسار",
    "hebrew with marks": "שָׁלוֹם \u200fעולם\u200e mixed with left to right",
    "emoji": "🎉 party 👩‍👩‍👧‍👦 family 🇯🇵 flag 👍🏽 thumb",
    "combining": "e\u0301 is not é, yet a\u0300\u0301\u0302 is",
    "NUL": "before\x00after",
    "controls": "tab\there\x07bell\x1bescape\x7fdelete\u0085next",
    "white space": " \n\t\u3000 ",
    "beyond the BMP": "𝕬𝖓𝖓𝖆 𓀀 🜁 \U0010fffd",
    "replacement": "broken \ufffd bytes \ufeff and a mark",
    "special words": "<|endoftext|> [CLS] [SEP] [MASK] [PAD]",
    "quotes": '"quoted" \\back\\slash\\ </script> {"input": "x"} \u2028line',
    "newlines": "first line\r\nsecond line\n\n\nlast",
    "digits": "3.14159 26535 89793 23846 + 1e400",
    "long word": "a" * 300,
    "long": LONG,
}
