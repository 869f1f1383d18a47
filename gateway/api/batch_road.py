"""The road of a batch's requests: that of the doors, without HTTP. Texts of many requests are embedded together.

Nothing passes the cache: a million texts would drive out those of interactive requests, and a cached vector is from other company.
"""

import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gateway.access.access_control import AccessControl
from gateway.access.admission import Admission
from gateway.access.keys.key import Caller
from gateway.access.limits.batch_lease import BatchLease, discounted
from gateway.access.limits.limiter import Limiter
from gateway.api.default_model import default_model
from gateway.api.door import Embedded, RequestContext
from gateway.api.embeddings import embed
from gateway.api.error_format import openai_error
from gateway.api.inference import ALWAYS, InferenceHandler
from gateway.api.models import allowed_model
from gateway.api.request_log import RequestRecord
from gateway.api.rerank import rerank
from gateway.batches.endpoint import Answers, OtherVectors, Standing, Use
from gateway.config import Config, ModelRow
from gateway.embedding.cache import VectorCache
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.catalog import Catalog, Model
from gateway.embedding.embedder import ModelKind
from gateway.embedding.fingerprint import changes
from gateway.errors import GatewayError
from gateway.metrics import Metrics
from gateway.wire import request as wire_request
from gateway.wire import rerank as wire_rerank
from gateway.wire import rerank_response
from gateway.wire import response as wire_response
from gateway.wire.request import EmbeddingsRequest
from gateway.wire.rerank import RerankRequest

ATTEMPT_SECONDS = 3600.0  # deadline of requests that are answered together
CONTROL = "A text that any model can embed."
KINDS: dict[str, ModelKind] = {"/v1/embeddings": "embedder", "/v1/rerank": "reranker"}


class UncachedHandler(InferenceHandler):
    """An InferenceHandler whose models compute every text. Within one request each text is computed once."""

    def __init__(self, *, max_request_tokens: int, **parts: Any) -> None:
        super().__init__(**parts)
        self.max_request_tokens = max_request_tokens
        self.uncached: dict[str, Model] = {}

    async def find_model(self, name: str, kind: ModelKind | None, context: RequestContext, *, num_inputs: int) -> Model:
        model = await super().find_model(name, kind, context, num_inputs=num_inputs)
        if model.built is None or model.built is model.embedder:
            return model
        if model.name not in self.uncached:
            inner = CachedEmbedder(
                model.built, VectorCache(0), max_request_tokens=self.max_request_tokens, metrics=self.metrics.of_model(model.name)
            )
            self.uncached[model.name] = replace(model, embedder=inner)
        return self.uncached[model.name]


@dataclass(slots=True, kw_only=True)
class ConfiguredRoad:
    """A `BatchRoad` over the parts of one generation, which is held open while requests are answered."""

    config: Config
    access: AccessControl
    limiter: Limiter
    catalog: Catalog
    handler: UncachedHandler
    metrics: Metrics
    is_local: Callable[[ModelRow], bool]
    hold: Callable[[], None] = lambda: None
    release: Callable[[], None] = lambda: None

    @property
    def max_line_bytes(self) -> int:
        return self.config.server.max_body_bytes

    def default_model(self, endpoint: str, caller: Caller) -> str | None:
        if KINDS[endpoint] == "embedder":
            return self.config.server.default_model
        return default_model(self.catalog, self.config.server, KINDS[endpoint], caller)

    def caller_of(self, key_id: str) -> Caller | None:
        return self.access.find_caller(key_id)

    def is_far(self, models: dict[str, str]) -> bool:
        rows = [model.row for name in models if (model := self.model_of(name)) is not None]
        return not all(map(self.is_local, rows))

    def model_of(self, name: str) -> Model | None:
        return self.catalog.by_name.get(name, self.catalog.catch_all)

    def standing(self, fingerprints: dict[str, str]) -> Standing:
        every = [self.standing_of(name, fingerprint) for name, fingerprint in fingerprints.items()]
        order: tuple[Standing, ...] = ("other", "unknown", "same")
        return next((standing for standing in order if standing in every), "same")

    def standing_of(self, name: str, fingerprint: str) -> Standing:
        model = self.model_of(name)
        if model is None:
            return "other"
        if model.state == "unloaded":  # its first request loads it
            return "same"
        if model.state != "ready":
            return "unknown"
        return "same" if _is_same(fingerprint, model) else "other"

    async def fingerprint(self, endpoint: str, model: str, caller: Caller) -> str:
        context = self.context("", caller)
        allowed_model(self.catalog, model, caller)
        try:
            found = await self.handler.find_model(model, KINDS[endpoint], context, num_inputs=0)
            return " ".join(_fingerprints_of(found))
        finally:
            context.release()

    def keep(self, models: Iterable[str]) -> AbstractContextManager[None]:
        names = list(models)
        found = [model for name in names if len(names) == 1 and (model := self.model_of(name)) is not None]
        return self.catalog.loader.keep(found)

    def parse(self, endpoint: str, body: bytes, *, default_model: str | None) -> EmbeddingsRequest | RerankRequest:
        if endpoint == "/v1/embeddings":
            return replace(wire_request.decode(body, default_model=default_model), is_background=True)
        return replace(wire_rerank.decode(body, path_model=None, default_model=default_model), is_background=True)

    def group_of(self, asked: EmbeddingsRequest | RerankRequest) -> Hashable:
        if isinstance(asked, RerankRequest):
            return None
        return (
            asked.model, asked.output_dtypes, asked.dimensions, asked.normalize, asked.long_input, asked.input_type,
            asked.instruction, asked.max_tokens, asked.has_ids,
        )  # fmt: skip

    def num_inputs(self, asked: EmbeddingsRequest | RerankRequest) -> int:
        return len(asked.texts)

    def control_of(self, asked: EmbeddingsRequest | RerankRequest) -> EmbeddingsRequest | RerankRequest:
        if isinstance(asked, RerankRequest):
            return replace(asked, query=CONTROL, texts=[CONTROL], documents=None)
        return replace(asked, texts=[CONTROL], is_array=True, has_ids=False)

    async def answer(self, asked: list[Any], caller: Caller, *, fingerprints: dict[str, str], request_id: str) -> Answers:
        self.access.refuse_spent(caller)
        context = self.context(request_id, caller)
        self.hold()
        try:
            async with context.lease:
                if isinstance(asked[0], RerankRequest):
                    return await self.rerank(asked[0], context, fingerprints)
                return await self.embed(asked, context, fingerprints)
        finally:
            context.release()
            self.release()

    async def embed(self, asked: list[EmbeddingsRequest], context: RequestContext, fingerprints: dict[str, str]) -> Answers:
        joined = asked[0]
        if len(asked) > 1:
            joined = replace(joined, texts=[text for each in asked for text in each.texts], is_array=True)
        done = await embed(self.handler, joined, context)
        self.refuse_other(done.model, joined.model, fingerprints)
        bodies = await self.handler.run_in_thread(ALWAYS, _encode_each, done, asked)
        self.metrics.of_model(done.model.name).record_embedding(done.token_counts, {**done.prepared.stages, **done.vectors.stages})
        return Answers(bodies, Use(done.model.name, len(asked), len(joined.texts), done.num_tokens))

    async def rerank(self, asked: RerankRequest, context: RequestContext, fingerprints: dict[str, str]) -> Answers:
        done = await rerank(self.handler, asked, context)
        self.refuse_other(done.model, asked.model, fingerprints)
        encode = partial(
            rerank_response.encode,
            done.rows[:, 0],
            asked,
            request_id=context.record.request_id,
            version="1",
            num_tokens=done.num_tokens,
        )
        body = await self.handler.run_in_thread(rerank_response.num_bytes(asked), encode)
        self.metrics.of_model(done.model.name).record_embedding(done.token_counts, {**done.prepared.stages, **done.vectors.stages})
        return Answers([body], Use(done.model.name, 1, len(asked.texts), done.num_tokens))

    def context(self, request_id: str, caller: Caller) -> RequestContext:
        """The context of a request that no client waits for."""
        lease = BatchLease(self.limiter, caller, discount=self.config.batches.token_discount)
        return RequestContext(lease, RequestRecord(request_id, "POST", ""), time.monotonic() + ATTEMPT_SECONDS, [])

    def refuse_other(self, model: Model, name: str, fingerprints: dict[str, str]) -> None:
        """Raises OtherVectors if these are not the vectors with which the batch was begun."""
        due = fingerprints.get(name)
        if due is not None and not _is_same(due, model):
            raise OtherVectors(self.other_vectors({name: due}))

    def other_vectors(self, fingerprints: dict[str, str]) -> str:
        for name, due in fingerprints.items():
            model = self.model_of(name)
            if model is None:
                return f"The model '{name}' of this batch is not served any more."
            if model.state == "ready" and not _is_same(due, model):
                then, found = due.split()[0], model.describe().fingerprint
                changed = f"{' and '.join(changes(then, found))} changed ({then} then, {found} now)"
                return f"The model '{name}' gives other vectors than when this batch was begun: {changed}."
        return "A model of this batch gives other vectors than when it was begun."

    def error_body(self, error: GatewayError) -> bytes:
        return openai_error(error).body

    def record(self, caller: Caller, use: Use) -> None:
        tokens = discounted(use.num_tokens, self.config.batches.token_discount)
        self.access.record(
            caller,
            model=use.model,
            num_inputs=use.num_inputs,
            num_tokens=tokens,
            num_cached_tokens=0,
            num_requests=use.num_requests,
        )

    def close(self) -> None:
        self.handler.close()


def batch_road(  # noqa: PLR0913 - the parts of a generation
    config: Config,
    *,
    access: AccessControl,
    limiter: Limiter,
    catalog: Catalog,
    admission: Admission,
    metrics: Metrics,
    is_local: Callable[[ModelRow], bool],
) -> ConfiguredRoad:
    handler = UncachedHandler(
        max_request_tokens=config.limits.max_request_tokens, access=access, catalog=catalog, admission=admission, limiter=limiter,
        settings=config.server, metrics=metrics,
    )  # fmt: skip
    return ConfiguredRoad(
        config=config, access=access, limiter=limiter, catalog=catalog, handler=handler, metrics=metrics, is_local=is_local
    )


def _fingerprints_of(model: Model) -> list[str]:
    """The model's own fingerprint, and others that mean the same vectors: measured neighbours, and equal members of a group."""
    about = model.describe()
    return list(dict.fromkeys((about.fingerprint, *map(model.name_of, (*about.alike, *about.members)))))


def _is_same(due: str, model: Model) -> bool:
    """Whether a model gives the vectors with which a batch was begun: `due` are its fingerprints then, its own first."""
    (own, *alike), found = due.split(), _fingerprints_of(model)
    return own in found or found[0] in alike


def _encode_each(done: Embedded, asked: list[EmbeddingsRequest]) -> list[bytes]:
    """The reply of each request. `done` has the rows of all of them, in order."""
    rows = done.as_dtype(asked[0].output_dtypes[0])
    ends = np.cumsum([len(each.texts) for each in asked])
    bodies = []
    for each, end in zip(asked, ends.tolist(), strict=True):
        start = end - len(each.texts)
        bodies.append(
            wire_response.encode(
                rows[start:end],
                model=each.model,
                encoding_format=each.encoding_format,
                num_tokens=sum(done.token_counts[start:end]),
            )
        )
    return bodies
