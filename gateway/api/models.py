"""GET /v1/models and /v1/models/{id}. An id may contain slashes, percent-encoded or not."""

from typing import Annotated, Literal

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.access.keys.key import Caller
from gateway.api.error_format import JSON
from gateway.config import LongInput, OutputDtype
from gateway.embedding.catalog import Catalog, Model
from gateway.embedding.embedder import ModelKind
from gateway.embedding.model import ModelState
from gateway.errors import UnknownModel

PREFIX = "/v1/models/"

Positive = Annotated[int, Meta(ge=1)]


class ModelObject(Struct, frozen=True, kw_only=True):
    """OpenAI's four fields, and more of our own. A model that was never loaded has only the first five, `alias_of` and `loaded`."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Meta(ge=0, description="When its weights were written, in Unix seconds; 0 until it is loaded.")]
    owned_by: str = "embeddings-gateway"
    state: ModelState
    loaded: Annotated[bool | UnsetType, Meta(description="Of a model on this machine: whether it is in memory.")] = UNSET
    idle_since: Annotated[
        Annotated[int, Meta(ge=0)] | UnsetType | None,
        Meta(description="Of a loaded one: when its last request ended, in Unix seconds; null while it has one."),
    ] = UNSET
    bytes: Annotated[Positive | UnsetType, Meta(description="Of a loaded one: the memory it takes, as its files say.")] = UNSET
    alias_of: Annotated[str | UnsetType, Meta(description="The model's name, where `id` is an alias.")] = UNSET
    kind: Annotated[
        ModelKind | UnsetType, Meta(description="What it gives: vectors of texts, or a reranker's scores of a query and documents.")
    ] = UNSET
    dimensions: Annotated[Positive | UnsetType, Meta(description="Components of a vector; a reranker has none.")] = UNSET
    max_tokens: Annotated[Positive | UnsetType, Meta(description="Tokens that the model reads at once.")] = UNSET
    long_input: Annotated[LongInput | UnsetType, Meta(description="The row's rule for longer texts.")] = UNSET
    fingerprint: Annotated[
        str | UnsetType, Meta(description="Which vectors these are; vectors of two fingerprints do not mix.")
    ] = UNSET
    output_dtypes: Annotated[
        tuple[OutputDtype, ...] | UnsetType, Meta(description="The types of numbers it gives, for output_dtype.")
    ] = UNSET
    quantization: Annotated[
        str | UnsetType | None,
        Meta(description="Which ranges its int8 and uint8 vectors have, null where none are known; those of two ids do not mix."),
    ] = UNSET
    backend: Annotated[str | UnsetType, Meta(description="What serves it.")] = UNSET
    source: Annotated[str | UnsetType, Meta(description="What it was loaded from, or its name on the server that has it.")] = UNSET
    runtime: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    precision: str | UnsetType = UNSET
    fidelity: Annotated[
        float | UnsetType | None,
        Meta(
            description="The worst cosine to sentence-transformers' vectors; of a reranker 1 less the worst difference of a score;"
            " null where it was not measured."
        ),
    ] = UNSET
    nearest_kept: Annotated[
        float | UnsetType | None,
        Meta(description="The share of a text's ten nearest that its vectors in 8 bits keep; null in other precisions."),
    ] = UNSET
    prompts: Annotated[tuple[str, ...] | UnsetType, Meta(description="The prompts it has, for input_type.")] = UNSET
    fallback: Annotated[str | UnsetType | None, Meta(description="What was given up for this runtime and precision, and why.")] = (
        UNSET
    )


class ModelsResponse(Struct, frozen=True, kw_only=True):
    """All names and aliases that the key may use."""

    object: Literal["list"] = "list"
    data: tuple[ModelObject, ...]


def routes(catalog: Catalog) -> list[HTTPRouteHandler]:
    @get("/v1/models")
    async def list_models(request: Request[Caller, None, State]) -> Response[bytes]:
        shown = [entry(name, model) for name, model in catalog if request.user.may_use(model.row.names)]
        return Response(msgspec.json.encode(ModelsResponse(data=tuple(shown))), media_type=JSON)

    @get("/v1/models/{model:path}")
    async def get_model(request: Request[Caller, None, State]) -> Response[bytes]:
        name = request.scope["path"].removeprefix(PREFIX)  # from the path: a path parameter would lose doubled slashes
        model = catalog.by_name.get(name)
        if model is None or not request.user.may_use(model.row.names):
            raise UnknownModel(name, usable=usable_names(catalog, request.user))
        return Response(msgspec.json.encode(entry(name, model)), media_type=JSON)

    return [list_models, get_model]


def allowed_model(catalog: Catalog, name: str, caller: Caller) -> Model:
    """Returns the model that serves `name`.

    Call it before the model's state is used: an error about its loading would reveal a model that the key may not use.
    Raises UnknownModel, for a model that the key may not use as for one that does not exist.
    """
    model = catalog.by_name.get(name, catalog.catch_all)
    if model is None or not caller.may_use(model.row.names):
        raise UnknownModel(name, usable=usable_names(catalog, caller))
    return model


def usable_names(catalog: Catalog, caller: Caller) -> list[str]:
    return [name for name, model in catalog if caller.may_use(model.row.names)]


def entry(name: str, model: Model) -> ModelObject:
    state, alias_of = model.state, UNSET if name == model.name else model.name
    is_here = model.unloadable is not None
    if not model.is_described:
        return ModelObject(id=name, created=0, state=state, loaded=False if is_here else UNSET, alias_of=alias_of)
    about, is_loaded = model.describe(), state == "ready"
    idle_since = model.load_state.idle_since
    ranges = model.ranges_of(model.dimensions)
    return ModelObject(
        id=name,
        created=about.created,
        state=state,
        loaded=is_loaded if is_here else UNSET,
        idle_since=(None if idle_since is None else int(idle_since)) if is_here and is_loaded else UNSET,
        bytes=about.num_bytes if is_loaded and about.num_bytes else UNSET,
        alias_of=alias_of,
        kind=about.kind,
        dimensions=UNSET if about.kind == "reranker" else model.dimensions,
        max_tokens=about.max_tokens,
        long_input=about.long_input,
        fingerprint=about.fingerprint,
        output_dtypes=model.output_dtypes if about.kind == "embedder" else UNSET,
        quantization=(ranges.id if ranges is not None else None) if about.kind == "embedder" else UNSET,
        backend=about.backend,
        source=about.source,
        runtime=about.runtime,
        device=about.device,
        precision=about.precision,
        fidelity=about.fidelity,
        nearest_kept=about.nearest_kept,
        prompts=about.prompts,
        fallback=about.fallback or None,
    )
