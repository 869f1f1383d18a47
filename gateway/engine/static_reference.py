"""The reference of a static model, for the compiling child: sentence-transformers' StaticEmbedding through torch, in float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer as FastTokenizer

from gateway.engine.checkpoint import PROBES, refuse_not_finite, unsupported_error
from gateway.engine.encoder import Window
from gateway.engine.fidelity import MIN_COSINE, cosines
from gateway.engine.model_folder import is_bare
from gateway.engine.static_encoder import StaticEncoder
from gateway.engine.static_model import StaticModel, read_static_model
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import OperatorError


class StaticReference:
    """An Encoder. Raises OperatorError if the model cannot be loaded, or reads other tokens than the gateway does."""

    def __init__(self, folder: Path) -> None:
        self.static = read_static_model(folder)
        self.info = replace(StaticEncoder(self.static).info, runtime="torch")
        self.model = _load(folder, self.static).float()
        tokenizer = Tokenizer(self.info.tokenizer_json)
        if tokenizer.max_id >= self.static.table.num_tokens:
            raise unsupported_error(
                folder, f"its tokenizer has tokens up to number {tokenizer.max_id}, its table {self.static.table.num_tokens} rows"
            )
        refuse_not_finite(folder, self.model)
        if not is_bare(folder):
            self.refuse_other_vectors(folder, tokenizer)

    def refuse_other_vectors(self, folder: Path, tokenizer: Tokenizer) -> None:
        """Compares a few texts with the model's own `encode`, tokens and all. Raises OperatorError if that gives other vectors."""
        ids = [tokenizer.fast.encode(probe, add_special_tokens=False).ids for probe in PROBES]
        texts = [text for text, read in zip(PROBES, ids, strict=True) if read]
        windows = [Window(read[: self.info.network.max_tokens]) for read in ids if read]
        expected = self.model.encode(texts, prompt="", show_progress_bar=False)
        worst = float(cosines(self.embed(windows), expected).min()) if texts else -1.0
        if worst < MIN_COSINE:
            raise unsupported_error(folder, f"its encode gives other vectors than its modules, with a cosine of {worst:.4f}")

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        texts = [[token for token in window.token_ids if token != self.static.left_out] for window in windows]
        offsets = np.cumsum([0, *map(len, texts[:-1])])
        features: dict[str, Any] = {
            "input_ids": torch.tensor([token for text in texts for token in text], dtype=torch.long),
            "offsets": torch.from_numpy(offsets),
        }
        with torch.inference_mode():
            for module in self.model:
                features = module(features)
        rows: NDArray[np.float32] = features["sentence_embedding"].numpy()
        return rows[:, : self.info.network.dimensions]


def _load(folder: Path, static: StaticModel) -> SentenceTransformer:
    """Through sentence-transformers, which has no place for a folder without modules.json, nor for whole numbers in its table."""
    try:
        if static.table.rows.dtype == np.int8:
            table = torch.from_numpy(static.table.of_tokens(np.arange(static.table.num_tokens)))
            embedding = StaticEmbedding(FastTokenizer.from_str(static.tokenizer_json), embedding_weights=table)
        elif is_bare(folder):
            embedding = StaticEmbedding.load(str(folder), local_files_only=True)
        else:
            return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise OperatorError(f"the model in {folder} cannot be loaded: {reason}") from error
    modules: list[torch.nn.Module] = [embedding, *([Normalize()] if static.is_unit else [])]
    return SentenceTransformer(modules=modules, device="cpu", truncate_dim=static.network.dimensions)
