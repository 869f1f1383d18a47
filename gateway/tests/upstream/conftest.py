"""A Remote over a stand-in, built as the gateway builds it."""

import time
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.config import EngineSettings, LimitSettings, convert
from gateway.embedding.backend import BackendContext
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.embedder import Inputs
from gateway.metrics import Metrics
from gateway.testing.upstream_server import Standin
from gateway.upstream.backend import UPSTREAM_BACKENDS

BACKENDS = {backend.name: backend for backend in UPSTREAM_BACKENDS}
SECONDS = 20


def built(backend, *, name="m", metrics=None, limits=None, shared=None, clock=time.monotonic, **settings):
    """As a row of the configuration would be."""
    row = convert(settings, BACKENDS[backend].settings, where=f"models[{name}]")
    of_model = (metrics or Metrics()).of_model(name)
    common = (limits or LimitSettings(), EngineSettings(), of_model, Path("/nowhere"))
    return BACKENDS[backend].build(row, BackendContext(name, *common, shared={} if shared is None else shared, clock=clock))


def cached_over(remote, cache):
    return CachedEmbedder(remote, cache, max_request_tokens=600_000, metrics=Metrics().of_model(remote.name))


@asynccontextmanager
async def started(backend, standin, **settings):
    """Yields an UpstreamEmbedder that has learned of the stand-in, whose requests so far are forgotten."""
    address = {} if "urls" in settings else {"url": standin.url}
    remote = built(backend, **address, **settings)
    try:
        await remote.start()
        standin.requests.clear()
        yield remote
    finally:
        await remote.close()


@asynccontextmanager
async def over(backend, answer, **settings):
    async with Standin(answer).serving() as standin, started(backend, standin, **settings) as remote:
        yield standin, remote


def inputs(*texts, seconds=SECONDS, **fields):
    return Inputs(list(texts), is_array=True, caller="c", deadline=time.monotonic() + seconds, **fields)


async def embedded(remote, *texts, **fields):
    return await remote.embed(await remote.prepare(inputs(*texts, **fields)))


def value_of(remote, name, **labels):
    """Of a metric of upstreams, as /metrics has it; None where it has no such labels."""
    found = (each for family in vars(remote.metrics.families).values() for each in family.collect())
    return next((each.value for family in found for each in family.samples if (each.name, each.labels) == (name, labels)), None)
