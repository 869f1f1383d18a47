"""Detects a model's kind from the files of its folder, and refuses those that are not served. Needs no torch.

The kind is read from modules.json and sentence-transformers' own configuration. `architectures` in config.json is no evidence: an
ordinary BERT names there the masked-LM head that it was trained with. Without modules.json, sentence-transformers pools whatever
network it finds. It then counts as another kind if it has that kind's own files or options, or if the folder has a head's weights.
"""

import re
import zipfile
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from gateway.embedding.embedder import ModelKind
from gateway.engine.identity import modules_of, parse_json, routes_of, weights_in
from gateway.errors import OperatorError

OTHER_KIND = "other_kind"  # the category of models that no other runtime would serve either

RERANKER = "a reranker (CrossEncoder), which scores pairs of texts and gives no vectors"
SPARSE = "a sparse encoder (such as SPLADE), which gives a weight for each word and no dense vector"
MULTI = "a multi-vector encoder (such as ColBERT), which gives a vector for each token and none for the whole text"
IMAGES = "a model of images or sound (such as CLIP)"
HEAD = "a network with the head of another task"
# By `model_type` in config_sentence_transformers.json, and by the package of the modules.
MODEL_TYPES = {"CrossEncoder": RERANKER, "SparseEncoder": SPARSE, "MultiVectorEncoder": MULTI, "ColBERT": MULTI}
PACKAGES = {"cross_encoder": RERANKER, "sparse_encoder": SPARSE, "multi_vector_encoder": MULTI, "pylate": MULTI}
# Modules of older releases, which were all in sentence_transformers.models.
MODULES = {
    "SpladePooling": SPARSE, "MLMTransformer": SPARSE, "SparseAutoEncoder": SPARSE, "CSRSparsity": SPARSE, "IDF": SPARSE,
    "SparseStaticEmbedding": SPARSE, "LogitScore": RERANKER, "MultiVectorMask": MULTI, "CLIPModel": IMAGES,
}  # fmt: skip
TASKS = {"sequence-classification": RERANKER, "fill-mask": SPARSE, "retrieval": MULTI}
RERANKER_TASKS = ("sequence-classification", "text-generation")
SPLADE_MODULES = (("Transformer", "MLMTransformer"), ("SpladePooling",))
STATIC_MODULES = {"Router", "Asym", "IDF", "SparseStaticEmbedding"}
TRANSFORMERS = {"Transformer", "MLMTransformer"}
RERANKER_MODULES = ("Transformer", "LogitScore", "Dense")
# What PyLate writes into config_sentence_transformers.json, even in releases without `model_type`.
PYLATE = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "skiplist_words")
# Modules that make one vector of a text; a Transformer that does so itself says it in `module_output_name`.
POOLS = {"Pooling", "StaticEmbedding", "BoW", "Router", "Asym"}
# Options of sentence_bert_config.json that change the network's inputs in ways that the gateway does not follow.
NOT_FOLLOWED = ("processing_kwargs", "query_length", "document_length", "query_expansion", "tokenizer_name_or_path")
OPTIONS = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
VOCABULARIES = (
    "tokenizer.json", "tokenizer.*.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tokenizer", "bpe.codes", "tekken.json",
)  # fmt: skip
CLASSIFIERS = re.compile(r"^(classifier|classification_head|score|logits_proj)\.")
TEXT_RANKING = re.compile(r"^pipeline_tag:\s*['\"]?text-ranking\b", re.MULTILINE)  # in a model card's front matter
NAMES_IN_PICKLE = re.compile(rb"[A-Za-z_][\w.]*\.(?:weight|bias)")
MAX_HEADER_BYTES = 100 * 1024 * 1024  # safetensors' own bound


def kind_of(folder: Path) -> ModelKind:
    """The kind of the model in `folder`.

    Raises OperatorError if it is of a kind that is not served; its message says what the folder contains and what to do.
    """
    told = _marked_kind(folder) if is_bare(folder) else _kind_of_modules(folder)
    if told not in {"", RERANKER, SPARSE}:
        raise other(folder, told)
    if told == SPARSE:
        _refuse_unserved_sparse(folder)
    for part in _transformer_folders(folder):
        if told == RERANKER:
            _refuse_reranker_options(part)
        elif told == SPARSE:
            _refuse_sparse_options(part, is_legacy="MLMTransformer" in _module_names(folder))
        else:
            _refuse_options(part)
        _refuse_foreign(part)
    if told == SPARSE:
        return "sparse_encoder"
    if told == RERANKER:
        _refuse_many_labels(folder)
        return "reranker"
    if is_bare(folder):
        _refuse_unsaved_reranker(folder)
    else:
        _refuse_without_pooling(folder)
    return "embedder"


def is_bare(folder: Path) -> bool:
    """Whether the folder has no modules.json, as transformers alone saves it: sentence-transformers then adds default pooling."""
    return modules_of(folder) is None


def pooled_by_default(folder: Path) -> str:
    """How sentence-transformers pools a bare folder: the last token if the network is a causal language model, else the mean."""
    config = table(folder / "config.json")
    architectures = config.get("architectures") or [""]
    is_causal = str(architectures[0]).endswith("ForCausalLM") and config.get("is_causal", True)
    return "last-token pooling" if is_causal else "mean pooling"


def _kind_of_modules(folder: Path) -> str:
    """The kind that modules.json and config_sentence_transformers.json tell, by its description; "" for an embedder."""
    config = table(folder / "config_sentence_transformers.json")
    model_type = config.get("model_type", "SentenceTransformer")
    told = "" if model_type == "SentenceTransformer" else MODEL_TYPES.get(str(model_type), f"of another kind, a {model_type}")
    if not told and any(config.get(mark) is not None for mark in PYLATE):
        return MULTI
    types = [str(module.get("type")) for module in modules_of(folder) or ()]
    for each in types:
        package, _, name = each.rpartition(".")
        kind = MODULES.get(name) or next((PACKAGES[part] for part in package.split(".") if part in PACKAGES), None)
        told = told or kind or ""
        if not told and not each.startswith("sentence_transformers."):
            raise custom(folder, f"modules.json names {each}")
    tasks = (options_of(part).get("transformer_task") for part in _transformer_folders(folder))
    told = told or next((TASKS[str(task)] for task in tasks if str(task) in TASKS), "")
    if told not in {"", RERANKER}:
        return told
    _refuse_foreign_modules(folder, types, is_reranker=told == RERANKER)
    return told


def _module_names(folder: Path) -> list[str]:
    """The classes of modules.json, without their packages."""
    return [str(module.get("type")).rpartition(".")[2] for module in modules_of(folder) or ()]


def _refuse_unserved_sparse(folder: Path) -> None:
    """Raises OperatorError for a sparse encoder that is no SPLADE: a network with a masked-LM head, and its pooling."""
    names = _module_names(folder)
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
    if table(folder / "config_sentence_transformers.json").get("max_active_dims") is not None:
        raise _unsupported_kind(f"the model in {folder} asks for max_active_dims, which is not supported here")


def _is_other(name: str, names: tuple[str, ...]) -> bool:
    return name not in names


def _refuse_foreign_modules(folder: Path, types: list[str], *, is_reranker: bool) -> None:
    """Raises OperatorError for modules and activation functions that are code of the model's own, or that no reranker has."""
    for each in types:
        if not each.startswith("sentence_transformers."):
            raise custom(folder, f"modules.json names {each}")
        if is_reranker and each.rpartition(".")[2] not in RERANKER_MODULES:
            raise _unsupported_kind(f"the model in {folder} is a reranker with a module {each}, which is not supported here")
    for module in modules_of(folder) or ():
        part = folder / str(module.get("path") or "")
        activation = table(part / "config.json").get("activation_function") if part != folder else None
        if isinstance(activation, str) and not activation.startswith("torch."):  # sentence-transformers would take Tanh instead
            raise custom(folder, f"the activation_function of {part.name} is {activation}")


def _refuse_without_pooling(folder: Path) -> None:
    names = {str(module.get("type")).rpartition(".")[2] for module in modules_of(folder) or ()}
    makes_one = any(options_of(part).get("module_output_name") == "sentence_embedding" for part in _transformer_folders(folder))
    if not makes_one and not POOLS & names:
        raise other(folder, "without a module that makes one vector of a text's tokens, such as Pooling in modules.json")


def _marked_kind(folder: Path) -> str:
    """The kind of which a folder without modules.json shows signs, by its description; "" for an embedder."""
    config = table(folder / "config.json")
    architectures = [str(each) for each in config.get("architectures") or ()]
    own = config.get("sentence_transformers")
    if "sbert_ce_default_activation_function" in config or (isinstance(own, dict) and "activation_fn" in own):
        return RERANKER  # as CrossEncoder was saved before it wrote modules.json
    is_late = any(each == "HF_ColBERT" or each.endswith("ForRetrieval") for each in architectures)
    if is_late or (folder / "artifact.metadata").is_file():  # as sentence-transformers' MultiVectorEncoder recognises them
        return MULTI
    names = (each.endswith("ForSequenceClassification") for each in architectures)
    if any(names) and any(CLASSIFIERS.match(name) for path in weights_in(folder) for name in tensor_names(path)):
        return RERANKER
    if any((folder / name).is_file() for name in ("preprocessor_config.json", "video_preprocessor_config.json")):
        return IMAGES
    return ""


def _refuse_unsaved_reranker(folder: Path) -> None:
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


def _refuse_many_labels(folder: Path) -> None:
    """Raises OperatorError if the head of a sequence classifier gives more than one number: it has labels, and no one score."""
    modules = modules_of(folder) or []
    if any(str(module.get("type")).rpartition(".")[2] in {"LogitScore", "Dense"} for module in modules):
        return  # the number of their scores is seen when they are run
    for part in _transformer_folders(folder):
        config = table(part / "config.json")
        labels = config.get("id2label")
        number = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)  # transformers' own default is 2
        if number != 1:
            raise other(folder, f"a classifier with {number} labels, where a reranker gives one score")


def _transformer_folders(folder: Path) -> list[Path]:
    """The folders of transformers' networks: the folder itself if it is bare, else those of modules.json and of its routes."""
    modules = modules_of(folder)
    if modules is None:
        return [folder]
    parts = [
        folder / str(module.get("path") or "") for module in modules if str(module.get("type")).rpartition(".")[2] in TRANSFORMERS
    ]
    routes = [route for module in modules for route in routes_of(folder / str(module.get("path") or ""))]
    return parts + [route for route in routes if (route / "config.json").is_file() and options_of(route)]


def options_of(part: Path) -> dict[str, Any]:
    """The first of the OPTIONS files that is not empty, in sentence-transformers' order; {} if there is none."""
    return next(filter(None, (table(part / name) for name in OPTIONS)), {})


def _refuse_options(part: Path) -> None:
    options = options_of(part)
    task = str(options.get("transformer_task") or "feature-extraction")
    if task != "feature-extraction":
        raise other(part, TASKS.get(task, f"{HEAD}, {task}"))
    modalities = set(options.get("modality_config") or {"text": None})
    if modalities != {"text"}:
        kind = "a chat model" if modalities <= {"text", "message"} else IMAGES
        raise other(part, f"{kind}: it reads {', '.join(sorted(modalities))}")
    told = [name for name in NOT_FOLLOWED if options.get(name)]
    if told:
        raise _unsupported_kind(f"the model in {part} asks for {' and '.join(told)}, which is not supported here")


def _refuse_sparse_options(part: Path, *, is_legacy: bool) -> None:
    """`is_legacy`: the module is an MLMTransformer, whose task need not be told."""
    options = options_of(part)
    task = str(options.get("transformer_task") or ("fill-mask" if is_legacy else "feature-extraction"))
    if task != "fill-mask":
        raise _unsupported_kind(
            f"the model in {part} pools the output of {task} to weights, where a masked-LM head's logits belong"
        )
    if set(options.get("modality_config") or {"text": None}) != {"text"}:
        raise other(part, IMAGES)
    told = [name for name in NOT_FOLLOWED if options.get(name)]
    if told:
        raise _unsupported_kind(f"the model in {part} asks for {' and '.join(told)}, which is not supported here")


def _refuse_reranker_options(part: Path) -> None:
    options = options_of(part)
    task = str(options.get("transformer_task") or "sequence-classification")
    if task not in RERANKER_TASKS:
        raise other(part, f"{HEAD}, {task}")
    modalities = set(options.get("modality_config") or {"text": None})
    if not modalities <= {"text", "message"}:
        raise other(part, f"{IMAGES}: it reads {', '.join(sorted(modalities))}")
    # What chat templates are rendered with is followed: the pairs they give are compared when the model is loaded.
    told = [name for name in NOT_FOLLOWED if options.get(name) and name != "processing_kwargs"]
    if told:
        raise _unsupported_kind(f"the model in {part} asks for {' and '.join(told)}, which is not supported here")


def _refuse_foreign(part: Path) -> None:
    """Raises OperatorError for a model that needs its own code, an adapter's base, or quantised weights, or has no tokenizer."""
    config = table(part / "config.json")
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        code = table(part / name).get("auto_map")
        if code:
            raise custom(part, f"{name} names {', '.join(sorted(map(str, code)))} under auto_map")
    if (part / "adapter_config.json").is_file():
        raise _unsupported_kind(
            f"the model in {part} is an adapter over another model: merge the two (peft's merge_and_unload), save them as one, and"
            " name that folder"
        )
    if config.get("quantization_config"):
        raise _unsupported_kind(f"the model in {part} is quantised, which is not supported: name the folder of its full weights")
    if not any(fnmatch(path.name, pattern) for path in part.glob("*") for pattern in VOCABULARIES):
        raise _unsupported_kind(
            f"the model in {part} has no tokenizer: there is no tokenizer.json, vocab.txt or other vocabulary in it; save its"
            " tokenizer there"
        )


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors in a weights file, read without torch. Empty if it cannot be read: loading it reports that."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                return set(msgspec.json.decode(file.read(min(length, MAX_HEADER_BYTES)), type=dict[str, Any])) - {"__metadata__"}
        if path.suffix == ".bin":
            with zipfile.ZipFile(path) as archive:
                pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
                return {found.decode() for name in pickles for found in NAMES_IN_PICKLE.findall(archive.read(name))}
    except (OSError, ValueError, zipfile.BadZipFile):
        return set()
    return set()


def table(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if there is no such file. Raises OperatorError if it is no JSON object."""
    if not path.is_file():
        return {}
    content = parse_json(path)
    if not isinstance(content, dict):
        raise OperatorError(f"the file {path} is no JSON object")
    return content


def other(folder: Path, kind: str) -> OperatorError:
    return _unsupported_kind(
        f"the model in {folder} is {kind}: it cannot be served; name an embedding model, a reranker or a SPLADE model as the source"
    )


def custom(folder: Path, what: str) -> OperatorError:
    return _unsupported_kind(
        f"the model in {folder} needs code of its own, which is never run here: {what}; name a model that transformers and"
        " sentence-transformers know by themselves, or serve this one with a server that runs its code, as another backend"
    )


def _unsupported_kind(message: str) -> OperatorError:
    return OperatorError(message, category=OTHER_KIND)
