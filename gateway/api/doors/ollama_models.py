"""Models as Ollama's clients read them: tags, show, ps and version. Source: api/types.go of ollama/ollama, 0.33."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from gateway.embedding.catalog import Model

API_VERSION = "0.33.0"  # Ollama's own: clients compare it with the first version that has what they need
NEVER = "2318-01-01T00:00:00Z"  # Ollama's clients show a date that far as "Forever"
UNKNOWN_DIGEST = "0" * 64  # of a model that is not loaded yet

EMBEDDING = ("embedding",)


class OllamaDetails(Struct, frozen=True, kw_only=True):
    """What a model is made of. `format` is the runtime, `family` the backend that serves it."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: Annotated[str, Meta(description="The precision.")] = ""


class OllamaTag(Struct, frozen=True, kw_only=True):
    """A model in /api/tags. `size` is unknown, and 0."""

    name: str
    model: str
    modified_at: str
    size: int = 0
    digest: Annotated[str, Meta(description="64 hexadecimal digits of its fingerprint; zeros until it is loaded.")]
    details: OllamaDetails
    capabilities: tuple[str, ...] = EMBEDDING


class OllamaTags(Struct, frozen=True):
    """The reply of /api/tags: all names and aliases that the key may use and that give vectors."""

    models: tuple[OllamaTag, ...]


class OllamaProcess(Struct, frozen=True, kw_only=True):
    """A loaded model in /api/ps. It stays loaded."""

    name: str
    model: str
    size: int = 0
    digest: str
    details: OllamaDetails
    expires_at: str = NEVER
    size_vram: int = 0
    context_length: int


class OllamaProcesses(Struct, frozen=True):
    """The reply of /api/ps."""

    models: tuple[OllamaProcess, ...]


class OllamaShowReply(Struct, frozen=True, kw_only=True):
    """The reply of /api/show."""

    license: str = ""
    modelfile: str
    parameters: str = ""
    template: str = "{{ .Prompt }}"
    details: OllamaDetails
    model_info: Annotated[dict[str, Any], Meta(description="Its length and width, under the name of its architecture.")] = field(
        default_factory=dict
    )
    capabilities: tuple[str, ...] = EMBEDDING
    modified_at: str


class OllamaVersion(Struct, frozen=True):
    """The reply of /api/version: the version of Ollama whose API this is."""

    version: str = API_VERSION


def tags(listed: Iterable[tuple[str, Model]]) -> OllamaTags:
    return OllamaTags(
        tuple(
            OllamaTag(name=name, model=name, modified_at=_written(model), digest=_digest(model), details=_details(model))
            for name, model in listed
        )
    )


def processes(listed: Iterable[tuple[str, Model]]) -> OllamaProcesses:
    return OllamaProcesses(
        tuple(
            OllamaProcess(
                name=name, model=name, digest=_digest(model), details=_details(model), context_length=model.describe().max_tokens
            )
            for name, model in listed
            if model.state == "ready"
        )
    )


def show(name: str, model: Model) -> OllamaShowReply:
    """`name` is the model's, with its tag. A model that is not loaded has no `model_info` and no parameters."""
    modelfile = f"# Served by an embeddings gateway: a Modelfile changes nothing here.\nFROM {name}\n"
    if model.state != "ready":
        return OllamaShowReply(modelfile=modelfile, details=_details(model), modified_at=_written(model))
    about = model.describe()
    info = {
        "general.architecture": about.backend,
        "general.type": "model",
        f"{about.backend}.context_length": about.max_tokens,
        f"{about.backend}.embedding_length": model.dimensions,
    }
    parameters = f"{'num_ctx':<30} {about.max_tokens}"
    return OllamaShowReply(
        modelfile=modelfile, parameters=parameters, details=_details(model), model_info=info, modified_at=_written(model)
    )


def _details(model: Model) -> OllamaDetails:
    if model.state != "ready":
        return OllamaDetails()
    about = model.describe()
    return OllamaDetails(format=about.runtime, family=about.backend, families=(about.backend,), quantization_level=about.precision)


def _digest(model: Model) -> str:
    """A model has another digest once its vectors are others, as an Ollama's has once its weights are others."""
    if model.state != "ready":
        return UNKNOWN_DIGEST
    return hashlib.sha256(model.describe().fingerprint.encode()).hexdigest()


def _written(model: Model) -> str:
    created = model.describe().created if model.state == "ready" else 0
    return datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
