"""Families of embedding models, each as a small model with random weights in its real architecture. Imports no pytest.

`FAMILIES` is the list of docs/models.md's table; `gateway.testing.matrix` serves each and writes what came of it.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    LayerNorm,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)
from transformers import PreTrainedTokenizerFast

from gateway.testing.architectures import scale_weights, trained
from gateway.testing.static_models import save_model2vec, save_static

HIDDEN, LAYERS, MAX_TOKENS, WINDOW = 32, 3, 1024, 16
SPARE_TOKENS = 8  # for those that some classes of tokenizers add
PROMPTS = {"query": "one two: ", "document": "the words of a passage: "}
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS + 4, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
DECODER = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
T5 = {"d_model": HIDDEN, "d_kv": 8, "d_ff": 64, "num_layers": LAYERS, "num_heads": 4}
DISTIL = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": MAX_TOKENS + 4}
MODERN = {"local_attention": WINDOW, "global_attn_every_n_layers": 3, "cls_token_id": 2, "sep_token_id": 3}

Modules = Callable[[], Sequence[torch.nn.Module]]
Make = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Family:
    """`models` are well-known ones of the family. `make` saves a small one in a new folder, and returns the folder to serve."""

    name: str
    models: str
    make: Make


def save_network(folder: Path, prefix: str, settings: dict[str, Any], *, suffix: str = "Model", side: str = "right") -> Path:
    """Saves a random network of transformers with a tokenizer, as transformers does."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained("bpe"),
        model_max_length=MAX_TOKENS,
        padding_side=side,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    torch.manual_seed(5)
    config = getattr(transformers, f"{prefix}Config")(vocab_size=len(tokenizer) + SPARE_TOKENS, **settings)
    network = getattr(transformers, f"{prefix.removesuffix('Text') if suffix == 'EncoderModel' else prefix}{suffix}")(config)
    scale_weights(network, 4)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_whole(
    folder: Path,
    prefix: str,
    settings: dict[str, Any],
    *,
    suffix: str = "Model",
    pooling: str = "mean",
    side: str = "right",
    between: Modules = tuple,
    behind: Modules = tuple,
    width: int = HIDDEN,
) -> Path:
    """Saves a whole model with prompts, as sentence-transformers does: a network, modules, Pooling, and more modules."""
    raw = save_network(folder / "raw", prefix, settings, suffix=suffix, side=side)
    modules = [Transformer(str(raw), max_seq_length=MAX_TOKENS), *between(), Pooling(width, pooling_mode=pooling), *behind()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS)
    model.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def save_with_layers(folder: Path) -> Path:
    """WeightedLayerPooling reads the output of every layer."""
    raw = save_network(folder / "raw", "Bert", SIZES)
    config = json.loads((raw / "config.json").read_text())
    (raw / "config.json").write_text(json.dumps(config | {"output_hidden_states": True}))
    network = Transformer(str(raw), max_seq_length=MAX_TOKENS)
    modules = [network, WeightedLayerPooling(HIDDEN, num_hidden_layers=LAYERS, layer_start=1), Pooling(HIDDEN)]
    SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS).save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def save_router(folder: Path) -> Path:
    """A Dense layer for queries alone, behind one network for both."""
    raw = save_network(folder / "raw", "Bert", SIZES)
    torch.manual_seed(9)
    routes = {"query": [Dense(HIDDEN, HIDDEN)], "document": [Normalize()]}
    modules = [Transformer(str(raw), max_seq_length=MAX_TOKENS), Pooling(HIDDEN), Router(routes, default_route="document")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def save_again(folder: Path, *, dtype: torch.dtype | None = None, **options: Any) -> Path:
    """A BERT whose weights are saved in another way: sharded, in another type, or as a pickle."""
    whole = save_whole(folder, "Bert", SIZES)
    network = transformers.BertModel.from_pretrained(whole)
    (whole / "model.safetensors").unlink()
    network.to(dtype or torch.float32).save_pretrained(whole, **options)
    return whole


def save_bin(folder: Path) -> Path:
    whole = save_whole(folder, "Bert", SIZES)
    torch.save(load_file(whole / "model.safetensors"), whole / "pytorch_model.bin")
    (whole / "model.safetensors").unlink()
    return whole


def save_adapter(folder: Path) -> Path:
    """LoRA beside its base, as peft saves it."""
    whole = save_whole(folder, "Bert", SIZES)
    base = folder / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(whole / name, base / name)
    torch.manual_seed(3)
    name = "base_model.model.encoder.layer.{}.attention.self.{}.lora_{}.weight"
    shapes = {"A": (4, HIDDEN), "B": (HIDDEN, 4)}
    tensors = {
        name.format(layer, part, which): torch.randn(shape) * 0.5
        for layer in range(LAYERS) for part in ("query", "value") for which, shape in shapes.items()
    }  # fmt: skip
    save_file(tensors, whole / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"],
        "lora_dropout": 0.0, "bias": "none", "task_type": "FEATURE_EXTRACTION", "inference_mode": True, "fan_in_fan_out": False,
    }  # fmt: skip
    (whole / "adapter_config.json").write_text(json.dumps(config))
    return whole


def save_format_only(folder: Path, *, name: str) -> Path:
    """A folder whose only weights are another format's."""
    whole = save_whole(folder, "Bert", SIZES)
    weights = whole / name
    weights.parent.mkdir(exist_ok=True)
    shutil.move(whole / "model.safetensors", weights)
    return whole


def save_changed(folder: Path, prefix: str, settings: dict[str, Any], **fields: Any) -> Path:
    """A whole model with other fields in its config.json."""
    whole = save_whole(folder, prefix, settings)
    path = whole / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return whole


def _dense() -> Sequence[torch.nn.Module]:
    torch.manual_seed(7)
    identity = torch.nn.Identity()
    return [
        Dense(HIDDEN, 64, bias=False, activation_function=identity),
        Dense(64, 24, bias=False, activation_function=identity),
        Normalize(),
    ]


def _seeded(make: Callable[[], torch.nn.Module]) -> Sequence[torch.nn.Module]:
    torch.manual_seed(7)
    return [make()]


def _network(prefix: str, settings: dict[str, Any], **options: Any) -> Make:
    return partial(save_whole, prefix=prefix, settings=settings, **options)


LAST: dict[str, Any] = {"pooling": "lasttoken", "behind": lambda: [Normalize()]}
CLS: dict[str, Any] = {"pooling": "cls", "behind": lambda: [Normalize()]}
TWO_WAYS = {"use_bidirectional_attention": True}
AUTO_MAP = {"AutoModel": "modeling_own.OwnModel"}

FAMILIES = (
    Family(
        "BERT",
        "bge-small/base/large-en-v1.5, e5-*-v2, all-MiniLM-L6-v2, mxbai-embed-large-v1, arctic-embed-m",
        _network("Bert", SIZES, **CLS),
    ),
    Family("DistilBERT", "distiluse-base-multilingual-cased-v2, msmarco-distilbert-base-v4", _network("DistilBert", DISTIL)),
    Family("RoBERTa", "all-distilroberta-v1, granite-embedding-125m-english", _network("Roberta", SIZES)),
    Family(
        "XLM-RoBERTa",
        "bge-m3 (its dense vectors), multilingual-e5-*, snowflake-arctic-embed-l-v2.0",
        _network("XLMRoberta", SIZES, **CLS),
    ),
    Family("CamemBERT", "sentence-camembert-base", _network("Camembert", SIZES)),
    Family("MPNet", "all-mpnet-base-v2, multi-qa-mpnet-base-dot-v1", _network("MPNet", SIZES | {"pad_token_id": 1})),
    Family("ELECTRA", "KoELECTRA sentence models", _network("Electra", SIZES | {"embedding_size": 16})),
    Family("ALBERT", "paraphrase-albert-small-v2", _network("Albert", SIZES | {"embedding_size": 16})),
    Family("DeBERTa-v2", "mdeberta-v3 sentence models", _network("DebertaV2", SIZES)),
    Family("RoFormer", "Chinese RoFormer-Sim", _network("RoFormer", SIZES)),
    Family("Longformer", "longformer sentence models", _network("Longformer", SIZES | {"attention_window": WINDOW})),
    Family("T5 encoder", "sentence-t5-*, gtr-t5-*", _network("T5", T5, suffix="EncoderModel", behind=_dense)),
    Family(
        "ModernBERT",
        "gte-modernbert-base, modernbert-embed-base, granite-embedding-english-r2",
        _network("ModernBert", SIZES | MODERN, **CLS),
    ),
    Family("NomicBERT", "nomic-embed-text-v1.5", _network("NomicBert", SIZES)),
    Family("GTE", "gte-multilingual-base, as converted for transformers", _network("Gte", SIZES, **CLS)),
    Family("EuroBERT", "EuroBERT sentence models", _network("EuroBert", SIZES)),
    Family("Jina embeddings v3", "jina-embeddings-v3-hf", _network("JinaEmbeddingsV3", SIZES)),
    Family("Qwen3, padded on the left", "Qwen3-Embedding-0.6B/4B/8B", _network("Qwen3", DECODER, side="left", **LAST)),
    Family("Qwen3, padded on the right", "models tuned from it", _network("Qwen3", DECODER, **LAST)),
    Family("Qwen2", "gte-Qwen2-1.5B-instruct", _network("Qwen2", SIZES | {"num_key_value_heads": 2}, **LAST)),
    Family(
        "Mistral",
        "e5-mistral-7b-instruct, SFR-Embedding-Mistral",
        _network("Mistral", DECODER | {"sliding_window": WINDOW}, **LAST),
    ),
    Family("Llama, causal", "RepLLaMA", _network("Llama", DECODER, side="left", **LAST)),
    Family("Llama, bidirectional", "llama-embed-nemotron-8b", _network("Llama", DECODER | {"is_causal": False})),
    Family(
        "Gemma 3, bidirectional, with Dense",
        "embeddinggemma-300m",
        _network("Gemma3Text", DECODER | SLIDING | TWO_WAYS, behind=_dense),
    ),
    Family("EmbeddingGemma 2", "embeddinggemma-2", _network("EmbeddingGemma2Text", DECODER | SLIDING)),
    Family("Qwen3, mixture of experts", "models tuned from Qwen3-30B-A3B", _network("Qwen3Moe", DECODER | EXPERTS, **LAST)),
    Family("Mixtral", "models tuned from it", _network("Mixtral", DECODER | {"num_local_experts": 4}, **LAST)),
    Family(
        "StaticEmbedding",
        "static-retrieval-mrl-en-v1, static-similarity-mrl-multilingual-v1",
        partial(save_static, normalize=True),
    ),
    Family("model2vec", "potion-base-8M, potion-retrieval-32M, M2V_multilingual_output", save_model2vec),
    Family(
        "model2vec, quantised vocabulary",
        "models saved with vocabulary_quantization",
        partial(save_model2vec, num_clusters=60, dtype="float16"),
    ),
    Family("Router", "models with a Dense layer for queries", save_router),
    Family("WeightedLayerPooling", "models trained with it", save_with_layers),
    Family("LayerNorm", "models trained with it", _network("Bert", SIZES, behind=lambda: _seeded(lambda: LayerNorm(HIDDEN)))),
    Family("CNN", "models trained with it", _network("Bert", SIZES, between=lambda: _seeded(lambda: CNN(HIDDEN, 12)), width=36)),
    Family("LSTM", "models trained with it", _network("Bert", SIZES, between=lambda: _seeded(lambda: LSTM(HIDDEN, 16)), width=32)),
    Family("PEFT adapter beside its base", "LoRA adapters of any of these", save_adapter),
    Family("Sharded safetensors", "any large model", partial(save_again, max_shard_size="20KB")),
    Family(".bin alone", "older uploads", save_bin),
    Family("float16 checkpoint", "many", partial(save_again, dtype=torch.float16)),
    Family("bfloat16 checkpoint", "many", partial(save_again, dtype=torch.bfloat16)),
    Family("ONNX alone", "folders of an ONNX export", partial(save_format_only, name="onnx/model.onnx")),
    Family("OpenVINO alone", "folders of an OpenVINO export", partial(save_format_only, name="openvino/openvino_model.bin")),
    Family(
        "Code of its own, known to transformers",
        "EuroBERT-210m and others that name code for older releases",
        partial(save_changed, prefix="EuroBert", settings=SIZES, auto_map=AUTO_MAP),
    ),
    Family(
        "Code of its own",
        "jina-embeddings-v2-*, stella, nomic-embed-text-v2-moe",
        partial(save_changed, prefix="Bert", settings=SIZES, auto_map=AUTO_MAP, model_type="own"),
    ),
    Family(
        "GPTQ, AWQ and other quantised weights",
        "quantised uploads",
        partial(save_changed, prefix="Bert", settings=SIZES, quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
)
