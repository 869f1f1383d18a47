"""`gateway models check`: says from a model's files alone, in a second, whether it would be served, and how."""

from typing import Any

import click
import msgspec

from gateway.cli.options import row_options
from gateway.cli.source_row import row_of, settings_of
from gateway.engine import runtime
from gateway.engine.int8 import SLOW, multiplies_int8
from gateway.engine.model_facts import ModelFacts
from gateway.engine.settings import LocalSettings
from gateway.engine.static_model import UNLIMITED_TOKENS
from gateway.engine.weights import find_folder

KINDS = {"embedder": "an embedder", "reranker": "a reranker", "sparse_encoder": "a sparse encoder"}
MEGABYTE = 1_000_000


@click.command()
@click.argument("source", metavar="FOLDER_OR_HUB_ID")
@row_options
def check(source: str, **settings: Any) -> None:
    """Say whether and how a model on this machine would be served. Exit code 2, and why, if it would not.

    Nothing is loaded or fetched: the first load still compares its vectors with those of sentence-transformers.
    """
    row, facts = row_of(source, **settings)
    asked = msgspec.structs.replace(settings_of(row), download=False)
    if facts is None:
        find_folder(asked)  # says what is missing
    else:
        click.echo("\n".join(lines_of(facts, asked)))


def lines_of(facts: ModelFacts, settings: LocalSettings) -> list[str]:
    modules = f" ({', '.join(facts.modules)})" if facts.modules else f", no modules.json: {facts.default_pooling or 'as it is'}"
    lines = [
        f"kind: {KINDS[facts.kind]}, {facts.network}{modules}",
        f"served: {_way_of(facts, settings)}",
        f"weights: {facts.num_bytes / MEGABYTE:.0f} MB",
        *_int8_of(facts, settings),
    ]
    if facts.dimensions is not None:
        lines += [f"dimensions: {facts.dimensions}"]
    if facts.matryoshka:
        lines += [f"trained for shorter vectors too: {', '.join(map(str, facts.matryoshka))}"]
    if facts.max_tokens is not None:
        lines += [
            f"reads: {'texts of any length' if facts.max_tokens == UNLIMITED_TOKENS else f'{facts.max_tokens} tokens at once'}"
        ]
    return lines + [f"prompt {name}: {text!r}" for name, text in facts.prompts.items()]


def _way_of(facts: ModelFacts, settings: LocalSettings) -> str:
    if facts.network == "static":
        return "by numpy on the CPU; nothing is compiled"
    if not runtime.compiles(settings):
        return "through torch on CUDA"
    otherwise = "not at all" if settings.trust_remote_code else "through torch"
    return f"compiled with OpenVINO for the CPU in {runtime.effective_precision(settings)}, or {otherwise} if its vectors differ"


def _int8_of(facts: ModelFacts, settings: LocalSettings) -> list[str]:
    if facts.kind != "embedder" or facts.network == "static" or not runtime.compiles(settings):
        return []
    return [f"8 bits: {SLOW if not multiplies_int8() else 'precision int8 or int8-fast, if its loss is small when it is compiled'}"]
