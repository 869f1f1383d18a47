"""What a model's own files say of it, read without torch and in milliseconds: for commands that look before a model is loaded."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.embedding.embedder import ModelKind
from gateway.engine.adapter import base_of
from gateway.engine.identity import modules_of, no_weights, weights_files
from gateway.engine.kind import kind_of, pooled_by_default
from gateway.engine.model_folder import OwnSettings, is_bare, module_names, options_of, own_settings, table, transformer_folders
from gateway.engine.static_model import is_static, read_static_model

WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")  # by which configurations call the size of a token's vector
MATRYOSHKA = re.compile(r'"matryoshka_dims":\s*\[([\d,\s]+)\]')  # in the model card of one that was trained for shorter vectors
MAX_CARD_CHARS = 1024 * 1024
LARGEST = 1 << 24  # transformers writes 10**30 where it knows no limit


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`dimensions` and `max_tokens` are None where no file says them. `matryoshka` are the lengths it was trained for."""

    kind: ModelKind
    network: str
    modules: tuple[str, ...]
    dimensions: int | None
    max_tokens: int | None
    num_bytes: int
    matryoshka: tuple[int, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    default_pooling: str = ""


def facts_of(folder: Path, *, trusts_code: bool = False) -> ModelFacts:
    """Raises OperatorError if the model would not be served, with the reason that loading it would give."""
    kind = kind_of(folder, trusts_code=trusts_code)
    weights = weights_files(folder)
    if not weights:
        raise no_weights(folder)
    num_bytes = sum(path.stat().st_size for path in weights)
    names = tuple(module_names(folder))
    if is_static(folder):
        network = read_static_model(folder).network
        return ModelFacts(
            kind, "static", names, network.dimensions, network.max_tokens, num_bytes, _matryoshka_of(folder), network.prompts
        )
    part = next(iter(transformer_folders(folder)), folder)
    config, own = table((base_of(part) or part) / "config.json"), own_settings(folder)
    return ModelFacts(
        kind=kind,
        network=str(config.get("model_type", "unknown")),
        modules=names,
        dimensions=_dimensions_of(folder, config, own) if kind == "embedder" else None,
        max_tokens=_max_tokens_of(part, config),
        num_bytes=num_bytes,
        matryoshka=_matryoshka_of(folder),
        prompts=own.named_prompts(),
        default_pooling=pooled_by_default(folder) if is_bare(folder) and kind == "embedder" else "",
    )


def _dimensions_of(folder: Path, config: dict[str, Any], own: OwnSettings) -> int | None:
    """The width of the last module that says one, or else of the network; `truncate_dim` cuts it."""
    width = next((config[name] for name in WIDTHS if isinstance(config.get(name), int)), None)
    for module in modules_of(folder) or ():
        options = table(folder / str(module.get("path") or "") / "config.json")
        width = _width_of(str(module.get("type")).rpartition(".")[2], options) or width
    return min(width, own.truncate_dim) if width and own.truncate_dim is not None else width


def _width_of(name: str, options: dict[str, Any]) -> int | None:
    if name == "Dense" and options.get("module_output_name", "sentence_embedding") == "sentence_embedding":
        width = options.get("out_features")
        return width if isinstance(width, int) else None
    if name != "Pooling":
        return None
    modes = options.get("pooling_mode")
    num_modes = (
        len(modes) if isinstance(modes, list) else sum(options[key] is True for key in options if key.startswith("pooling_mode_"))
    )
    each = options.get("embedding_dimension", options.get("word_embedding_dimension"))
    return each * max(1, num_modes) if isinstance(each, int) else None


def _max_tokens_of(part: Path, config: dict[str, Any]) -> int | None:
    """What sentence-transformers would read: its own setting, or else the least of the tokenizer's and the network's."""
    told = options_of(part).get("max_seq_length")
    if isinstance(told, int):
        return told
    limits = [table(part / "tokenizer_config.json").get("model_max_length"), config.get("max_position_embeddings")]
    return min((int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < LARGEST), default=None)


def _matryoshka_of(folder: Path) -> tuple[int, ...]:
    try:
        card = (folder / "README.md").read_text(encoding="utf-8")[:MAX_CARD_CHARS]
    except (OSError, UnicodeDecodeError):
        return ()
    found = MATRYOSHKA.search(card)
    return tuple(sorted({int(number) for number in re.findall(r"\d+", found[1])}, reverse=True)) if found else ()
