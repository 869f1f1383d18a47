"""Static models: a table of a vector for each token, and the mean of a text's tokens. Read from their files without torch.

Three forms on disk. sentence-transformers' StaticEmbedding has the tensor `embedding.weight`. model2vec's has `embeddings`, with a
`mapping` of tokens to rows and a `weights` number for each token where its vocabulary is quantised; modules.json beside it makes
it a StaticEmbedding too. Without modules.json, model2vec's own rules hold: unknown tokens are left out, and a text ends after
`max_length` tokens of config.json, 512 by default.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from gateway.engine.encoder import NetworkInfo
from gateway.engine.identity import modules_of
from gateway.engine.model_folder import is_bare, module_names, own_settings, table
from gateway.engine.tensors import read_tensors
from gateway.engine.unsupported import MODEL2VEC, OTHER_KIND
from gateway.errors import OperatorError

STATIC, NORMALIZE = "StaticEmbedding", "Normalize"
MODEL2VEC_TOKENS = 512  # its default max_length
UNLIMITED_TOKENS = 1_000_000  # of a model whose files name no limit; model2vec writes this number too
NOT_USED = ("truncation", "padding", "post_processor")  # parts of tokenizer.json: its special tokens are never in a text
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TokenTable:
    """A vector for each token id: row `mapping[id]` of `rows`, times `weights[id]`. `rows` has shape (number of rows, dimensions).

    Rows stay in the type of the file, so that they take no more memory than it; bfloat16 is kept as uint16.
    """

    rows: NDArray[Any]
    mapping: NDArray[np.int64] | None = None
    weights: NDArray[np.float32] | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.rows if self.mapping is None else self.mapping)

    def of_tokens(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of token ids, shape (len(ids), dimensions)."""
        rows = self.rows[ids if self.mapping is None else self.mapping[ids]]
        if rows.dtype == np.uint16:  # bfloat16 is the upper half of a float32
            vectors = (rows.astype(np.uint32) << 16).view(np.float32)
        else:
            vectors = rows if rows.dtype == np.float32 else rows.astype(np.float32)
        return vectors if self.weights is None else vectors * self.weights[ids, None]


@dataclass(frozen=True, slots=True)
class StaticModel:
    """A static model's table, tokenizer and properties. `left_out` is a token id that is not counted in means, or None."""

    table: TokenTable
    network: NetworkInfo
    tokenizer_json: str
    is_unit: bool
    left_out: int | None


def is_static(folder: Path) -> bool:
    if is_bare(folder):
        return table(folder / "config.json").get("model_type") == MODEL2VEC
    return module_names(folder)[:1] == [STATIC]


def read_static_model(folder: Path) -> StaticModel:
    """Raises OperatorError if the model has modules that are not known here, or its files do not fit together."""
    part = _static_folder(folder)
    rows = _table_of(part / WEIGHTS)
    parts = _tokenizer_parts(part / TOKENIZER)
    config, own = table(folder / "config.json"), own_settings(folder)
    is_unit = bool(config.get("normalize")) if is_bare(folder) else NORMALIZE in module_names(folder)
    dimensions = rows.rows.shape[1]
    prompts = own.named_prompts()
    network = NetworkInfo(
        dimensions=min(dimensions, own.truncate_dim or dimensions),
        max_tokens=_max_tokens(folder, config, parts),
        prompts=prompts,
        default_prompt=prompts.get(own.default_prompt_name or "", ""),
        is_normalized=is_unit and (own.truncate_dim or dimensions) >= dimensions,
        pooling="mean",
    )
    left_out = _unknown_token(parts) if is_bare(folder) else None
    tokenizer_json = msgspec.json.encode(parts | dict.fromkeys(NOT_USED, Raw(b"null"))).decode()
    return StaticModel(rows, network, tokenizer_json, is_unit, left_out)


def _static_folder(folder: Path) -> Path:
    """The folder of the table and its tokenizer."""
    if is_bare(folder):
        return folder
    others = [name for name in module_names(folder)[1:] if name != NORMALIZE]
    if others:
        raise _unsupported(folder, f"it has the module {others[0]} behind its table of vectors; only {NORMALIZE} may follow it")
    truncate_dim = own_settings(folder).truncate_dim
    if truncate_dim is not None and truncate_dim < 1:
        raise _unsupported(folder, f"it says truncate_dim {truncate_dim!r}, where a number of dimensions belongs")
    return folder / str((modules_of(folder) or [{}])[0].get("path") or "")


def _table_of(path: Path) -> TokenTable:
    if not path.is_file():
        raise _unsupported(path.parent, f"its table of vectors is not in {WEIGHTS}: save it again as safetensors")
    tensors = read_tensors(path)
    rows = tensors.get("embedding.weight", tensors.get("embeddings"))
    if rows is None or rows.ndim != 2:  # noqa: PLR2004 - a row a token
        raise _unsupported(path.parent, f"{WEIGHTS} has neither a table embedding.weight nor one called embeddings")
    if "embedding.weight" in tensors:
        return TokenTable(rows)
    mapping, weights = tensors.get("mapping"), tensors.get("weights")
    found = TokenTable(
        rows,
        None if mapping is None else mapping.astype(np.int64),
        None if weights is None else weights.astype(np.float32),
    )
    is_mapped = mapping is None or (mapping.size > 0 and int(mapping.min()) >= 0 and int(mapping.max()) < len(rows))
    if not is_mapped or (weights is not None and weights.shape != (found.num_tokens,)):
        raise _unsupported(path.parent, f"the tensors of {WEIGHTS}, embeddings, mapping and weights, do not fit together")
    return found


def _tokenizer_parts(path: Path) -> dict[str, Raw]:
    """The parts of tokenizer.json, undecoded: a vocabulary of 500,000 words takes a second to decode."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Raw])
    except (OSError, msgspec.MsgspecError):
        raise _unsupported(path.parent, f"there is no {TOKENIZER} in it that can be read") from None


def _max_tokens(folder: Path, config: dict[str, Any], parts: dict[str, Raw]) -> int:
    """The tokens after which `encode` cuts a text: by the truncation of tokenizer.json, or model2vec's max_length."""
    truncation = msgspec.json.decode(parts.get("truncation", Raw(b"null")))
    limit = truncation.get("max_length") if isinstance(truncation, dict) else None
    if isinstance(truncation, dict) and truncation.get("direction", "Right") != "Right":
        raise _unsupported(folder, "its tokenizer cuts long texts at their beginning")
    if is_bare(folder):
        limit = config.get("max_length", MODEL2VEC_TOKENS)
    return int(limit) if isinstance(limit, int | float) and math.isfinite(limit) and limit >= 1 else UNLIMITED_TOKENS


def _unknown_token(parts: dict[str, Raw]) -> int | None:
    """The id of the token for words that are not in the vocabulary; None if the tokenizer has none."""
    model = msgspec.json.decode(parts.get("model", Raw(b"{}")))
    if isinstance(model.get("unk_id"), int):  # Unigram
        return int(model["unk_id"])
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    return vocabulary.get(unknown) if isinstance(vocabulary, dict) else None


def _unsupported(folder: Path, what: str) -> OperatorError:
    return OperatorError(f"the static model in {folder} cannot be served: {what}", category=OTHER_KIND)
