"""`gateway models diff`: compares the fingerprints of two models, and measures the drift of their vectors."""

import asyncio
import base64
import json
import sys
import time
from dataclasses import dataclass

import click
import msgspec
import numpy as np

from gateway.app import Gateway
from gateway.cli.load.texts import sentences
from gateway.cli.options import config_option
from gateway.config import load
from gateway.embedding.drift import Drift, measure_drift
from gateway.embedding.embedder import Embedder, Inputs, WorkT
from gateway.embedding.equivalence import PROBES
from gateway.embedding.fingerprint import changes
from gateway.embedding.model import refuse_reranker
from gateway.embedding.sparse import dense_rows
from gateway.embedding.vectors import Float32
from gateway.errors import OperatorError

NUM_TEXTS = 256  # the corpus of the nearest-neighbour search
EMBED_SECONDS = 600.0
EXIT_MOVED = 1


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two models: its fingerprint, and its vectors of `texts()`, None if they can no longer be made here."""

    fingerprint: str
    rows: Float32 | None


def texts() -> list[str]:
    return [*PROBES, *sentences()[: NUM_TEXTS - len(PROBES)]]


@click.command()
@config_option
@click.argument("first", metavar="MODEL")
@click.argument("second", metavar="MODEL")
@click.option("--api-key-env", metavar="NAME", help="The variable with the key of a running gateway. Default: GATEWAY_API_KEY.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def diff(  # noqa: PLR0913 - click hands over each option by its name
    outer_path: str | None, *, path: str | None, first: str, second: str, api_key_env: str | None, as_json: bool
) -> None:
    """Show which parts of two models differ, and measure how far their vectors are apart.

    A MODEL is one of: a configured model's name; the fingerprint of a compiled model that is still on this machine; a model of a
    running gateway, as http://HOST:PORT/v1#NAME. Both embed the same texts.

    \b
    Exit code 0    an index made with one may be searched with the other
              1    the vectors moved: embed anew
              2    they cannot be compared
    """
    config = load(path or outer_path)
    # A gateway for each: both sides may be the same model, and a closed embedder does not start again.
    sides = [asyncio.run(_side_of(text, Gateway(config), api_key_env)) for text in (first, second)]
    parts = changes(sides[0].fingerprint, sides[1].fingerprint)
    drift = measure_drift(sides[0].rows, sides[1].rows) if sides[0].rows is not None and sides[1].rows is not None else None
    report = {
        "first": sides[0].fingerprint,
        "second": sides[1].fingerprint,
        "parts_that_differ": parts,
        "texts": drift.num_texts if drift else 0,
        "mean_cosine": drift.mean_cosine if drift else None,
        "worst_cosine": drift.worst_cosine if drift else None,
        "neighbours_kept": drift.kept if drift else None,
        "verdict": verdict(parts, drift),
    }
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(lines(report)))
    if parts and (drift is None or not drift.is_interchangeable):
        sys.exit(EXIT_MOVED)


def lines(report: dict[str, object]) -> list[str]:
    def cell(value: object) -> str:
        if value is None:
            return "-"
        if isinstance(value, list):
            return ", ".join(value) or "none"
        return f"{value:.6f}" if isinstance(value, float) else str(value)

    return [f"{name.replace('_', ' '):18}  {cell(value)}" for name, value in report.items()]


def verdict(parts: list[str], drift: Drift | None) -> str:
    if drift is None:
        return "the same vectors" if not parts else "one of them cannot be run here: embed anew, or measure where both can"
    if drift.is_interchangeable:
        return "an index made with one may be searched with the other"
    return "the vectors moved: embed anew"


async def _side_of(text: str, gateway: Gateway, api_key_env: str | None) -> _Side:
    """Embeds the texts with one of the two. Raises OperatorError if `text` names no model, or it cannot be reached."""
    if text.startswith(("http://", "https://")):
        return await _running_side(text, api_key_env)
    model = gateway.catalog.by_name.get(text)
    if model is not None:
        embedder = model.built or model.embedder
        try:
            await model.start()
            refuse_reranker(model.name, embedder.describe().kind)
            return _Side(embedder.describe().fingerprint, await _embed_texts(embedder))
        finally:
            await embedder.close()
    for row in gateway.config.models:
        if found := gateway.bind(row).find_compiled(text):
            try:
                return _Side(text, await _embed_texts(found))
            finally:
                await found.close()
    if "." not in text:
        raise OperatorError(f"'{text}' is no configured model, no fingerprint and no http://HOST:PORT/v1#NAME")
    return _Side(text, None)


async def _embed_texts(embedder: Embedder[WorkT]) -> Float32:
    inputs = Inputs(texts(), is_array=True, caller="diff", deadline=time.monotonic() + EMBED_SECONDS)
    return dense_rows(await embedder.embed(await embedder.prepare(inputs)), embedder.describe())


async def _running_side(text: str, api_key_env: str | None) -> _Side:
    from gateway.cli.bench import find_key  # noqa: PLC0415 - its HTTP client is not in an image that only serves
    from gateway.cli.load import peer  # noqa: PLC0415

    key = find_key(api_key_env)
    url, _, name = text.partition("#")
    async with peer.open_session(peer.base_url(url), key=key, num_connections=1) as http:
        server = peer.BenchTarget(http, key=key, timeout_seconds=EMBED_SECONDS)
        name = name or await server.first_model()
        content = msgspec.json.encode({"model": name, "input": texts(), "encoding_format": "base64"})
        response = await server.check_reachable("POST", "embeddings", content=content)
    data = msgspec.json.decode(response.content)["data"]
    rows = [np.frombuffer(base64.b64decode(each["embedding"]), dtype="<f4") for each in data]
    return _Side(response.headers.get("x-gateway-fingerprint", "unknown"), np.stack(rows))
