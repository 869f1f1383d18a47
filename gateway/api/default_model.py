"""The model of a request that names none: the one that the settings name for its kind, else the only one of that kind."""

from gateway.access.keys.key import Caller
from gateway.config import ServerSettings
from gateway.embedding.catalog import Catalog
from gateway.embedding.embedder import ModelKind


def default_model(catalog: Catalog, settings: ServerSettings, kind: ModelKind, caller: Caller) -> str | None:
    """Returns the name of the default model of this kind; None if the key may use none of that kind, or several.

    A model's kind is known once it is loaded. While one of several models still loads, that one is returned: the client gets a 503
    and tries again, so the default does not depend on when a request was sent. A model that waits for its first request, or that
    failed, counts only if no other model is of this kind.
    """
    if (configured := _configured(settings, kind)) is not None:
        return configured
    usable = [model for model in catalog.models if caller.may_use(model.row.names)]
    known = [model for model in usable if model.state == "ready" and model.describe().kind == kind]
    unknown = [model for model in usable if model.state != "ready"]
    loading = [model for model in unknown if model.row.load == "start" and model.state == "loading"]
    if loading and len(known) + len(unknown) > 1:
        return loading[0].name
    candidates = known or unknown
    return candidates[0].name if len(candidates) == 1 else None


def _configured(settings: ServerSettings, kind: ModelKind) -> str | None:
    return {"embedder": settings.default_model, "reranker": settings.default_reranker}.get(kind)
