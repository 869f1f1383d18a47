"""Small models of many architectures with random weights, as sentence-transformers saves them. Imports no pytest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from gateway.engine.fidelity import PROBES

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["the red server", "a", "Größe 你好 مرحبا 🙂", "one two three four five six seven", "x" * 30, "word " * 40]
HIDDEN, LAYERS, HEADS, MAX_TOKENS = 32, 3, 4, 192
WINDOW = 16  # of sliding attention, in tokens: padding is longer in any batch that mixes short and long
POSITIONS = MAX_TOKENS + 4
COMMON = {
    "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 64,
    "max_position_embeddings": POSITIONS, "pad_token_id": 0,
}  # fmt: skip
SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
T5 = {"d_model": HIDDEN, "d_kv": 8, "d_ff": 64, "num_layers": LAYERS, "num_heads": HEADS}
DISTIL = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64, "max_position_embeddings": POSITIONS}
MODERN = {"local_attention": WINDOW, "global_attn_every_n_layers": 3, "cls_token_id": 2, "sep_token_id": 3}

# For each kind: the configuration's class, the model's class, and the settings.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertModel", COMMON),
    "mpnet": ("MPNetConfig", "MPNetModel", COMMON | {"pad_token_id": 1}),
    "xlm-r": ("XLMRobertaConfig", "XLMRobertaModel", COMMON),
    "distilbert": ("DistilBertConfig", "DistilBertModel", DISTIL),
    "roberta": ("RobertaConfig", "RobertaModel", COMMON),
    "modernbert": ("ModernBertConfig", "ModernBertModel", COMMON | MODERN),
    "t5": ("T5Config", "T5EncoderModel", T5),
    "qwen3": ("Qwen3Config", "Qwen3Model", COMMON | GROUPED),
    "mistral": ("MistralConfig", "MistralModel", COMMON | GROUPED | {"sliding_window": WINDOW}),
    "gemma3": ("Gemma3TextConfig", "Gemma3TextModel", COMMON | GROUPED | SLIDING | {"use_bidirectional_attention": True}),
    "gemma3-causal": ("Gemma3TextConfig", "Gemma3TextModel", COMMON | GROUPED | SLIDING),
    "fnet": ("FNetConfig", "FNetModel", COMMON),
}
LAST_TOKEN = {"qwen3", "mistral"}  # kinds with last-token pooling


def trained(kind, *, special=True):
    """A small tokenizer of one of three families, trained on the probe texts. If `special`, it puts special tokens around texts."""
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([*PROBES, *TEXTS], trainer)
    if not special:
        return tokenizer
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def scale_weights(network: torch.nn.Module, scale: float) -> None:
    """Scales up the weights of a random network, so that its layers matter; biases and norms stay."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)


def model_of(
    kind: str,
    folder: Path,
    *,
    spoil: Callable[[torch.nn.Module], None] | None = None,
    hidden: int = HIDDEN,
    scale: float = 4,
    dtype: torch.dtype = torch.float32,
    **whole: Any,
) -> Path:
    """Saves a model of a kind; returns its folder. Weights are scaled up, so that layers matter; `spoil` may change them."""
    config_name, model_name, settings = KINDS[kind]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained("bpe"), model_max_length=MAX_TOKENS, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip
    torch.manual_seed(5)
    network = getattr(transformers, model_name)(getattr(transformers, config_name)(vocab_size=len(tokenizer), **settings))
    scale_weights(network, scale)
    if spoil:
        with torch.no_grad():
            spoil(network)
    network.to(dtype).save_pretrained(folder / "raw")
    tokenizer.save_pretrained(folder / "raw")
    modules = [
        Transformer(str(folder / "raw"), max_seq_length=MAX_TOKENS),
        Pooling(hidden, pooling_mode="lasttoken" if kind in LAST_TOKEN else "mean"),
    ]
    SentenceTransformer(modules=modules, device="cpu", **whole).save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"
