"""Refuses models whose files ask for what the gateway does not follow: options, modules and heads. `own_code` is about their code.

An error says what the folder contains, and what to do.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatch
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway.engine.adapter import is_adapter, reason_against
from gateway.engine.identity import modules_of
from gateway.engine.model_folder import OWN_SETTINGS, inner_table, module_names, options_of, table, transformer_folders
from gateway.errors import OperatorError

OURS = "sentence_transformers."  # the package of the classes that a model may name
OTHER_KIND = "other_kind"  # the category of models that no other runtime would serve either

RERANKER = "a reranker (CrossEncoder), which scores pairs of texts and gives no vectors"
SPARSE = "a sparse encoder (such as SPLADE), which gives a weight for each word and no dense vector"
MULTI = "a multi-vector encoder (such as ColBERT), which gives a vector for each token and none for the whole text"
IMAGES = "a model of images or sound (such as CLIP)"
HEAD = "a network with the head of another task"

TASKS = {"sequence-classification": RERANKER, "fill-mask": SPARSE, "retrieval": MULTI}
RERANKER_TASKS = ("sequence-classification", "text-generation")
SPLADE_MODULES = (("Transformer", "MLMTransformer"), ("SpladePooling",))
STATIC_MODULES = {"Router", "Asym", "IDF", "SparseStaticEmbedding"}
# Of an embedder. The gateway feeds token ids and masks, in padded batches, which these read right.
MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "WeightedLayerPooling", "Dropout", "Router", "Asym"}
UNSERVED = {
    "CNN": "in a padded batch it mixes padding into the vectors",
    "LSTM": "it reads the length of each text, where the gateway gives token ids and masks",
    **dict.fromkeys(("BoW", "WordEmbeddings", "WordWeights"), "it reads whole words, where the gateway gives token ids and masks"),
    "StaticEmbedding": "a table of vectors is served if it comes first, with no more than Normalize behind it",
}
RERANKER_MODULES = ("Transformer", "LogitScore", "Dense")
MODEL2VEC = "model2vec"  # a static model's `model_type`
MODALITIES = {"vision_config", "audio_config", "image_size", "num_mel_bins", "feat_extract_norm"}  # of networks of images or sound
# Modules that make one vector of a text; a Transformer that does so itself says it in `module_output_name`.
POOLS = {"Pooling", "StaticEmbedding", "BoW", "Router", "Asym"}
# Options of sentence_bert_config.json that change the network's inputs in ways that the gateway does not follow.
NOT_FOLLOWED = ("processing_kwargs", "query_length", "document_length", "query_expansion", "tokenizer_name_or_path")
VOCABULARIES = (
    "tokenizer.json", "tokenizer.*.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tokenizer", "bpe.codes", "tekken.json",
)  # fmt: skip
SENTENCEPIECE = {".model", ".spm"}
TEXT_RANKING = re.compile(r"^pipeline_tag:\s*['\"]?text-ranking\b", re.MULTILINE)  # in a model card's front matter


def refuse_options(part: Path) -> None:
    """Raises OperatorError if the options of an embedder's network name another task, other modalities, or what is not followed."""
    options = options_of(part)
    task = str(options.get("transformer_task") or "feature-extraction")
    if task != "feature-extraction":
        raise other(part, TASKS.get(task, f"{HEAD}, {task}"))
    modalities = set(inner_table(options, "modality_config", part) or {"text": None})
    if modalities != {"text"}:
        kind = "a chat model" if modalities <= {"text", "message"} else IMAGES
        raise other(part, f"{kind}: it reads {', '.join(sorted(modalities))}")
    _refuse_unfollowed(part, options)


def refuse_sparse_options(part: Path, *, is_legacy: bool) -> None:
    """As `refuse_options`, for a sparse encoder. `is_legacy`: the module is an MLMTransformer, whose task may be absent."""
    options = options_of(part)
    task = str(options.get("transformer_task") or ("fill-mask" if is_legacy else "feature-extraction"))
    if task != "fill-mask":
        raise _unsupported_kind(
            f"the model in {part} pools the output of {task} to weights, where a masked-LM head's logits belong"
        )
    if set(inner_table(options, "modality_config", part) or {"text": None}) != {"text"}:
        raise other(part, IMAGES)
    _refuse_unfollowed(part, options)


def refuse_reranker_options(part: Path) -> None:
    """As `refuse_options`, for a reranker, which may have a chat template too."""
    options = options_of(part)
    task = str(options.get("transformer_task") or "sequence-classification")
    if task not in RERANKER_TASKS:
        raise other(part, f"{HEAD}, {task}")
    modalities = set(inner_table(options, "modality_config", part) or {"text": None})
    if not modalities <= {"text", "message"}:
        raise other(part, f"{IMAGES}: it reads {', '.join(sorted(modalities))}")
    # What chat templates are rendered with is followed: the pairs they give are compared when the model is loaded.
    _refuse_unfollowed(part, options, [name for name in NOT_FOLLOWED if name != "processing_kwargs"])


def _refuse_unfollowed(part: Path, options: dict[str, Any], names: Iterable[str] = NOT_FOLLOWED) -> None:
    if found := [name for name in names if options.get(name)]:
        raise _unsupported_kind(f"the model in {part} asks for {' and '.join(found)}, which is not supported here")


def refuse_foreign(part: Path, *, has_own_code: bool = False) -> None:
    """Raises OperatorError for a model that needs an adapter's base, or quantised weights, or has no tokenizer.

    Also for a network that transformers does not have, unless it is code of the model's own.
    """
    config = table(part / "config.json")
    if not is_adapter(part) and not has_own_code:
        _refuse_unknown_network(part, config)
    if reason := reason_against(part):
        raise _unsupported_kind(
            f"the model in {part} is an adapter over another model, and {reason}: merge the two (peft's merge_and_unload), save"
            " them as one, and name that folder"
        )
    if config.get("quantization_config"):
        raise _unsupported_kind(f"the model in {part} is quantised, which is not supported: name the folder of its full weights")
    _refuse_tokenizer(part)


def _refuse_tokenizer(part: Path) -> None:
    found = [path for path in sorted(part.glob("*")) if any(fnmatch(path.name, pattern) for pattern in VOCABULARIES)]
    if not found:
        raise _unsupported_kind(
            f"the model in {part} has no tokenizer: there is no tokenizer.json, vocab.txt or other vocabulary in it; save its"
            " tokenizer there"
        )
    if all(path.suffix in SENTENCEPIECE for path in found) and find_spec("sentencepiece") is None:
        raise _unsupported_kind(
            f"the model in {part} has {found[0].name} and no tokenizer.json: where the package sentencepiece is installed, load its"
            " tokenizer with transformers' AutoTokenizer, and save it there"
        )


def _refuse_unknown_network(part: Path, config: dict[str, Any]) -> None:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        lacks = "there is no model_type in its config.json" if (part / "config.json").is_file() else "it has no config.json"
        raise _unsupported_kind(f"the model in {part} is of an unknown network: {lacks}")
    known = _known_networks()
    if known and f'"{model_type}"' not in known and model_type != MODEL2VEC:
        raise _unsupported_kind(
            f"the model in {part} is of the network {model_type}, which the installed release of transformers does not have"
        )
    if MODALITIES & set(config) and not options_of(part).get("modality_config"):
        raise other(part, IMAGES)


@lru_cache(maxsize=1)
def _known_networks() -> str:
    """The source of transformers' lists of networks, in which each is a quoted name; "" if it is not installed.

    Read as text: importing transformers takes seconds.
    """
    found = find_spec("transformers")
    folder = Path(found.origin).parent / "models" / "auto" if found is not None and found.origin else None
    files = [folder / name for name in ("auto_mappings.py", "configuration_auto.py")] if folder is not None else []
    return "".join(path.read_text(encoding="utf-8") for path in files if path.is_file())


def refuse_foreign_modules(folder: Path, *, is_reranker: bool) -> None:
    """Raises OperatorError for modules that the gateway cannot feed, that no reranker has, or that nobody knows.

    Skips code of the model's own, whose vectors are compared when it is loaded.
    """
    types = [str(module.get("type")) for module in modules_of(folder) or ()]
    for number, each in enumerate(types):
        name = each.rpartition(".")[2]
        if is_reranker and name not in RERANKER_MODULES:
            raise _unsupported_kind(f"the model in {folder} is a reranker with a module {each}, which is not supported here")
        if is_reranker or name in MODULES or not each.startswith(OURS) or (name == "StaticEmbedding" and number == 0):
            continue
        why = UNSERVED.get(name, "it is in no release of sentence-transformers that is known here")
        raise _unsupported_kind(f"the model in {folder} has the module {name}, which is not supported here: {why}")


def refuse_without_pooling(folder: Path) -> None:
    """Raises OperatorError if no module makes one vector of a text's tokens."""
    names = {str(module.get("type")).rpartition(".")[2] for module in modules_of(folder) or ()}
    makes_one = any(options_of(part).get("module_output_name") == "sentence_embedding" for part in transformer_folders(folder))
    if not makes_one and not POOLS & names:
        raise other(folder, "without a module that makes one vector of a text's tokens, such as Pooling in modules.json")


def refuse_unsaved_reranker(folder: Path) -> None:
    """Raises OperatorError for a causal model that only its model card calls a reranker: its files are an embedder's.

    So were Qwen3-Reranker's first published. Its last token's vectors would be served, and mean nothing.
    """
    card = folder / "README.md"
    with suppress(OSError, UnicodeDecodeError):
        _, _, rest = card.read_text(encoding="utf-8").partition("---\n")
        if TEXT_RANKING.search(rest.partition("\n---")[0]):
            raise _unsupported_kind(
                f"the model in {folder} is a reranker by its model card (text-ranking), without the files by which"
                " sentence-transformers scores pairs: save it once with CrossEncoder, LogitScore and a chat template of the roles"
                " query and document, and name that folder"
            )


def refuse_many_labels(folder: Path) -> None:
    """Raises OperatorError if the head of a sequence classifier gives more than one number: it has labels, and no one score."""
    modules = modules_of(folder) or []
    if any(str(module.get("type")).rpartition(".")[2] in {"LogitScore", "Dense"} for module in modules):
        return  # the number of their scores is seen when they are run
    for part in transformer_folders(folder):
        config = table(part / "config.json")
        labels = config.get("id2label")
        number = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)  # transformers' own default is 2
        if number != 1:
            raise other(folder, f"a classifier with {number} labels, where a reranker gives one score")


def refuse_unserved_sparse(folder: Path) -> None:
    """Raises OperatorError for a sparse encoder that is no SPLADE: a network with a masked-LM head, and its pooling."""
    names = module_names(folder)
    if set(names) & STATIC_MODULES:
        raise _unsupported_kind(
            f"the model in {folder} is a sparse encoder without inference for queries (Router, SparseStaticEmbedding), which is not"
            " supported: name the folder of its document encoder as the source"
        )
    is_ours = all(str(module.get("type")).startswith("sentence_transformers.") for module in modules_of(folder) or ())
    if not is_ours or len(names) != len(SPLADE_MODULES) or any(map(_is_other, names, SPLADE_MODULES)):
        raise _unsupported_kind(
            f"the model in {folder} is a sparse encoder of the modules {', '.join(names)}, which is not supported: only SPLADE"
            " is, a Transformer with SpladePooling"
        )
    if table(folder / OWN_SETTINGS).get("max_active_dims") is not None:
        raise _unsupported_kind(f"the model in {folder} asks for max_active_dims, which is not supported here")


def _is_other(name: str, names: tuple[str, ...]) -> bool:
    return name not in names


def other(folder: Path, kind: str) -> OperatorError:
    return _unsupported_kind(
        f"the model in {folder} is {kind}: it cannot be served; name an embedding model, a reranker or a SPLADE model as the source"
    )


def _unsupported_kind(message: str) -> OperatorError:
    return OperatorError(message, category=OTHER_KIND)
