"""Detects a model's kind from the files of its folder, without torch; `unsupported` refuses those that are not served.

The kind is read from modules.json and sentence-transformers' own configuration. `architectures` in config.json is no evidence: an
ordinary BERT names there the masked-LM head that it was trained with. Without modules.json, sentence-transformers pools whatever
network it finds. It then counts as another kind if it has that kind's own files or options, or if the folder has a head's weights.
"""

import re
from pathlib import Path

from gateway.embedding.embedder import ModelKind
from gateway.engine.adapter import base_of
from gateway.engine.identity import modules_of, weights_in
from gateway.engine.model_folder import OWN_SETTINGS, is_bare, module_names, options_of, table, tensor_names, transformer_folders
from gateway.engine.own_code import refuse_own_code
from gateway.engine.unsupported import (
    IMAGES,
    MULTI,
    RERANKER,
    SPARSE,
    TASKS,
    other,
    refuse_foreign,
    refuse_foreign_modules,
    refuse_many_labels,
    refuse_options,
    refuse_reranker_options,
    refuse_sparse_options,
    refuse_unsaved_reranker,
    refuse_unserved_sparse,
    refuse_without_pooling,
)

# By `model_type` in config_sentence_transformers.json, and by the package of the modules.
MODEL_TYPES = {"CrossEncoder": RERANKER, "SparseEncoder": SPARSE, "MultiVectorEncoder": MULTI, "ColBERT": MULTI}
PACKAGES = {"cross_encoder": RERANKER, "sparse_encoder": SPARSE, "multi_vector_encoder": MULTI, "pylate": MULTI}
# Modules of older releases, which were all in sentence_transformers.models.
MODULES = {
    "SpladePooling": SPARSE, "MLMTransformer": SPARSE, "SparseAutoEncoder": SPARSE, "CSRSparsity": SPARSE, "IDF": SPARSE,
    "SparseStaticEmbedding": SPARSE, "LogitScore": RERANKER, "MultiVectorMask": MULTI, "CLIPModel": IMAGES,
}  # fmt: skip
# What PyLate writes into config_sentence_transformers.json, even in releases without `model_type`.
PYLATE = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "skiplist_words")
CLASSIFIERS = re.compile(r"^(classifier|classification_head|score|logits_proj)\.")


def kind_of(folder: Path, *, trusts_code: bool = False) -> ModelKind:
    """The kind of the model in `folder`. `trusts_code` says that its row lets code of its own run.

    Raises OperatorError if it is of a kind that is not served; its message says what the folder contains and what to do.
    """
    found = _marked_kind(folder) if is_bare(folder) else _kind_of_modules(folder)
    if found not in {"", RERANKER, SPARSE}:
        raise other(folder, found)
    refuse_own_code(folder, trusts_code=trusts_code)
    if found != SPARSE:
        refuse_foreign_modules(folder, is_reranker=found == RERANKER)
    if found == SPARSE:
        refuse_unserved_sparse(folder)
    for part in transformer_folders(folder):
        if found == RERANKER:
            refuse_reranker_options(part)
        elif found == SPARSE:
            refuse_sparse_options(part, is_legacy="MLMTransformer" in module_names(folder))
        else:
            refuse_options(part)
        refuse_foreign(part, has_own_code=trusts_code)
    if found == SPARSE:
        return "sparse_encoder"
    if found == RERANKER:
        refuse_many_labels(folder)
        return "reranker"
    if is_bare(folder):
        refuse_unsaved_reranker(folder)
    else:
        refuse_without_pooling(folder)
    return "embedder"


def pooled_by_default(folder: Path) -> str:
    """How sentence-transformers pools a bare folder: the last token if the network is a causal language model, else the mean."""
    config = table((base_of(folder) or folder) / "config.json")
    architectures = config.get("architectures") or [""]
    is_causal = str(architectures[0]).endswith("ForCausalLM") and config.get("is_causal", True)
    return "last-token pooling" if is_causal else "mean pooling"


def _kind_of_modules(folder: Path) -> str:
    """The kind that modules.json and config_sentence_transformers.json name, by its description; "" for an embedder."""
    config = table(folder / OWN_SETTINGS)
    model_type = config.get("model_type", "SentenceTransformer")
    found = "" if model_type == "SentenceTransformer" else MODEL_TYPES.get(str(model_type), f"of another kind, a {model_type}")
    if not found and any(config.get(mark) is not None for mark in PYLATE):
        return MULTI
    types = [str(module.get("type")) for module in modules_of(folder) or ()]
    for each in types:
        package, _, name = each.rpartition(".")
        kind = MODULES.get(name) or next((PACKAGES[part] for part in package.split(".") if part in PACKAGES), None)
        found = found or kind or ""
    tasks = (options_of(part).get("transformer_task") for part in transformer_folders(folder))
    return found or next((TASKS[str(task)] for task in tasks if str(task) in TASKS), "")


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
    is_classifier = any(each.endswith("ForSequenceClassification") for each in architectures)
    if is_classifier and any(CLASSIFIERS.match(name) for path in weights_in(folder) for name in tensor_names(path)):
        return RERANKER
    if any((folder / name).is_file() for name in ("preprocessor_config.json", "video_preprocessor_config.json")):
        return IMAGES
    return ""
