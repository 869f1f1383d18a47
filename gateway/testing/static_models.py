"""Small static models with random tables, as sentence-transformers and model2vec save them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from gateway.testing.architectures import trained

DIMENSIONS = 24


def random_table(num_rows: int, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((num_rows, dimensions)).astype(np.float32)


def save_static(
    folder: Path, *, dtype: torch.dtype = torch.float32, normalize: bool = False, max_tokens: int | None = None, **whole: Any
) -> Path:
    """Saves a model as sentence-transformers does, its table in a folder of its own. `max_tokens` is its tokenizer's truncation."""
    tokenizer = trained("wordpiece")
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)
    table = torch.from_numpy(random_table(tokenizer.get_vocab_size()))
    modules = [StaticEmbedding(tokenizer, embedding_weights=table), *([Normalize()] if normalize else [])]
    SentenceTransformer(modules=modules, device="cpu", **whole).save(str(folder), create_model_card=False)
    weights = next(folder.rglob("model.safetensors"))
    save_torch_file({"embedding.weight": table.to(dtype)}, weights)
    return folder


def save_model2vec(
    folder: Path, *, dtype: str = "float32", num_clusters: int = 0, normalize: bool = True, is_bare: bool = False, **config: Any
) -> Path:
    """Saves a model as model2vec does. With `num_clusters` its vocabulary is quantised: tokens share rows, and have weights."""
    tokenizer = trained("wordpiece")
    num_tokens = tokenizer.get_vocab_size()
    rows = random_table(num_clusters or num_tokens)
    tensors: dict[str, NDArray[Any]] = {"embeddings": np.rint(rows * 30).astype("int8") if dtype == "int8" else rows.astype(dtype)}
    if num_clusters:
        tensors["mapping"] = np.arange(num_tokens) % num_clusters
        tensors["weights"] = np.linspace(0.2, 3, num_tokens)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize, "hidden_dim": DIMENSIONS}
    (folder / "config.json").write_text(json.dumps(fields | {"seq_length": 1_000_000, "embedding_dtype": dtype} | config))
    modules = [{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
    if normalize:
        modules += [{"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"}]
    if not is_bare:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def model2vec_rows(folder: Path, texts: list[str]) -> NDArray[np.float32]:
    """What model2vec's own `encode` gives, told again without it: the means of all known tokens.

    It also cuts a long text by its characters before it is tokenised, by the median length of a token; that is left out.
    """
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unknown = tokenizer.token_to_id("[UNK]")
    rows = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids[: config.get("max_length", 512)]
        ids = [each for each in ids if each != unknown]
        found = tensors["embeddings"][tensors["mapping"][ids] if "mapping" in tensors else ids].astype(np.float64)
        found = found * tensors["weights"][ids][:, None] if "weights" in tensors else found
        mean = found.mean(axis=0)
        rows.append(mean / np.linalg.norm(mean) if config["normalize"] else mean)
    return np.array(rows, dtype=np.float32)
