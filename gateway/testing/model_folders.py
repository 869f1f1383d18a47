"""Small model folders of many architectures, with random weights, as sentence-transformers saves them."""

import json
import shutil
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from gateway.engine.fidelity import PROBES

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HIDDEN, HEADS, POSITIONS, READS = 32, 4, 64, 48
SIZES = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 48}


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(PROBES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL))
    ids = [(token, words.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=POSITIONS, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def network(architecture: str, num_tokens: int) -> torch.nn.Module:
    """A network with weights large enough that a change of any of them changes the vectors."""
    torch.manual_seed(len(architecture))
    common = {"vocab_size": num_tokens, "pad_token_id": 0, "initializer_range": 0.2}
    distil = {"dim": HIDDEN, "n_layers": 2, "n_heads": HEADS, "hidden_dim": 48, "max_position_embeddings": POSITIONS}
    if architecture == "distilbert":
        return DistilBertModel(DistilBertConfig(**common, **distil))
    if architecture == "modernbert":
        window = {"max_position_embeddings": POSITIONS, "local_attention": 16, "global_attn_every_n_layers": 2}
        tokens = {"cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
        return ModernBertModel(ModernBertConfig(**common, **SIZES, **window, **tokens))
    if architecture == "bert":
        return BertForMaskedLM(BertConfig(**common, **SIZES, max_position_embeddings=POSITIONS)).base_model
    kinds = {
        "mpnet": (MPNetModel, MPNetConfig),
        "roberta": (RobertaModel, RobertaConfig),
        "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig),
    }
    kind, config = kinds[architecture]
    beyond = {"type_vocab_size": 1} if "roberta" in architecture else {}
    return kind(config(**common, **SIZES, max_position_embeddings=POSITIONS + 2, **beyond))


def saved(folder: Path, architecture: str = "bert", *, pooling: str = "mean", dense: bool = False, **whole: object) -> Path:
    """Saves a whole model in `folder`: Transformer, Pooling, Dense if `dense`, Normalize. Returns the folder."""
    fast = tokenizer()
    parts = folder.with_name(f"{folder.name}-parts")
    network(architecture, len(fast)).save_pretrained(parts)
    fast.save_pretrained(parts)
    modules = [Transformer(str(parts), max_seq_length=READS), Pooling(HIDDEN, pooling_mode=pooling)]
    modules += [Dense(HIDDEN, 24)] if dense else []
    model = SentenceTransformer(modules=[*modules, Normalize()], device="cpu", **whole)
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(parts)
    return folder


BASES: dict[str, dict[str, object]] = {
    "bert": {},
    "bert-cls-dense": {"pooling": "cls", "dense": True},
    "bert-prompts": {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": "query"},
    "bert-cut": {"truncate_dim": 16},
    "mpnet": {"architecture": "mpnet"},
    "roberta": {"architecture": "roberta", "pooling": "cls"},
    "xlm-roberta": {"architecture": "xlm-roberta"},
    "distilbert": {"architecture": "distilbert", "pooling": "max"},
    "modernbert": {"architecture": "modernbert"},
}


def base(name: str, under: Path) -> Path:
    """Saves one of BASES in a new folder in `under`."""
    return saved(under / name, **BASES[name])  # type: ignore[arg-type]


def bare(folder: Path, into: Path) -> Path:
    """Copies the model as transformers alone would have saved it: without sentence-transformers' files."""
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    into.mkdir()
    for name in names:
        if (folder / name).is_file():
            shutil.copy(folder / name, into)
    return into


def edit(path: Path, **fields: object) -> None:
    """Sets fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
