"""Models of the size that people serve, with random weights: speed and memory do not ask what the weights are.

The tokenizers' words are made up beyond those of a few sentences. The real ones share more beginnings, so they take less memory.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from gateway.testing.multilingual import SENTENCES, all_sentences, made

END, PAD = "<|endoftext|>", "<|pad|>"
NUM_WORDS, NUM_QWEN_TOKENS, READS = 250_002, 151_669, 32_768
NUM_REQUESTS = 64


@dataclass(frozen=True)
class FullSize:
    """`make` saves the model below a folder and returns its own folder. A request has `inputs` texts."""

    name: str
    make: Callable[[Path], Path]
    inputs: int


def multilingual(folder: Path) -> Path:
    """The size of paraphrase-multilingual-MiniLM-L12-v2: 12 layers, 384 wide, 250,037 words."""
    return made(folder, width=384, layers=12, heads=12, num_tokens=NUM_WORDS)


def qwen3(folder: Path) -> Path:
    """The size of Qwen3-Embedding-0.6B: 28 layers, 1,024 wide, 151,669 tokens, 596 million weights in float32."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(NUM_QWEN_TOKENS), model_max_length=READS, padding_side="left", pad_token=PAD, eos_token=END
    )
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=len(fast), hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=READS, rope_theta=1e6, tie_word_embeddings=True,
        bos_token_id=fast.eos_token_id, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id,
    )  # fmt: skip
    Qwen3Model(config).save_pretrained(folder / "parts")
    fast.save_pretrained(folder / "parts")
    modules = [Transformer(str(folder / "parts"), max_seq_length=READS), Pooling(1024, pooling_mode="lasttoken"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def byte_level_bpe(num_tokens: int) -> Tokenizer:
    """A tokenizer of Qwen's kind, trained on sentences. Made-up merges, which come last, fill it up to `num_tokens`."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=[END, PAD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(all_sentences(), trainer)
    written = json.loads(trained.to_str())
    vocabulary, merges = written["model"]["vocab"], written["model"]["merges"]
    pieces = [piece for piece in vocabulary if piece not in {END, PAD}]
    chance = random.Random(5)  # noqa: S311 - pieces, no secrets
    while len(vocabulary) < num_tokens:
        pair = [chance.choice(pieces), chance.choice(pieces)]
        if "".join(pair) not in vocabulary:
            vocabulary["".join(pair)] = len(vocabulary)
            merges.append(pair)
    whole = Tokenizer.from_str(json.dumps(written, ensure_ascii=False))
    whole.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    return whole


def texts(inputs: int) -> list[list[str]]:
    """Requests of `inputs` texts: one to three sentences of one language each, languages mixed in every request."""
    chance = random.Random(17)  # noqa: S311 - texts, no secrets
    languages = list(SENTENCES.values())

    def text() -> str:
        return " ".join(chance.choices(chance.choice(languages), k=chance.randint(1, 3))) + f" {chance.randint(1, 10**6)}"

    return [[text() for _ in range(inputs)] for _ in range(NUM_REQUESTS)]


MODELS = {
    model.name: model for model in (FullSize("multilingual", multilingual, inputs=64), FullSize("qwen3-0.6b", qwen3, inputs=8))
}
