"""The preprocessor of a model, by its kind: for texts, or for a reranker's pairs."""

import threading
from typing import TypeAlias

import msgspec

from gateway.config import LimitSettings
from gateway.embedding.embedder import Inputs, Prepared
from gateway.engine import token_ids
from gateway.engine.encoder import NetworkInfo
from gateway.engine.pair_preprocessor import PairPreprocessor
from gateway.engine.preprocessor import Preprocessor, Windows
from gateway.engine.settings import LocalSettings
from gateway.engine.tokenizer import Tokenizer

AnyPreprocessor: TypeAlias = Preprocessor | PairPreprocessor


def preprocessor_of(network: NetworkInfo, tokenizer: Tokenizer, settings: LocalSettings, limits: LimitSettings) -> AnyPreprocessor:
    """The preprocessor of a model of any kind, with its row's settings."""
    if network.kind == "reranker":
        return PairPreprocessor(network, tokenizer, rule=settings.long_input, limits=limits)
    return Preprocessor(
        network,
        tokenizer,
        prompts=network.prompts | dict(settings.prompts),
        rule=settings.long_input,
        limits=limits,
        instruction_format=settings.instruction_format,
    )


def preprocessor_of_texts(preprocessor: AnyPreprocessor) -> Preprocessor:
    """That of single texts. A reranker, which reads pairs, has another one for clients that ask for tokens: it adds no prompt."""
    if isinstance(preprocessor, Preprocessor):
        return preprocessor
    network = msgspec.structs.replace(preprocessor.network, default_prompt="")
    return Preprocessor(network, preprocessor.tokenizer, prompts={}, rule=preprocessor.rule, limits=preprocessor.limits)


def prepare_windows(preprocessor: AnyPreprocessor, inputs: Inputs, abandoned: threading.Event) -> Prepared[Windows]:
    """Prepares texts, token ids of the model's own, or pairs. Raises as these do."""
    if isinstance(preprocessor, Preprocessor):
        return token_ids.prepare(preprocessor, inputs, abandoned)
    return preprocessor.prepare(inputs, abandoned)
