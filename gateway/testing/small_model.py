"""Makes a small network with random weights: a BERT of two layers, whose tokenizer knows 23 words."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = [
    "the", "a", "of", "and", "to", "in", "is", "it", "on", "we", "you", "server",
    "model", "vector", "text", "word", "query", "passage", "long", "short", "red", "green", "blue",
]  # fmt: skip


def small_tokenizer():
    """A tokenizer with one token for each of WORDS."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS, ":"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_small_model(folder: Path) -> Path:
    """Saves a model with CLS pooling, no Normalize and two prompts, as sentence-transformers does. Returns its folder."""
    bare, fast = folder / "transformer", small_tokenizer()
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(bare)
    fast.save_pretrained(bare)
    transformer = Transformer(str(bare), max_seq_length=32)
    pooling = Pooling(32, pooling_mode="cls")
    whole = SentenceTransformer(modules=[transformer, pooling], prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    whole.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"
