"""`[doors]`: other servers' protocols, which their own clients speak to the gateway."""

from typing import Annotated

from msgspec import Meta

from gateway.config.setting import Settings


class DoorSettings(Settings, frozen=True):
    tei: Annotated[
        bool, Meta(description="text-embeddings-inference's paths: /embed, /tokenize and others, and its form of /rerank.")
    ] = True
    ollama: Annotated[bool, Meta(description="Ollama's paths: /api/embed, /api/tags and others.")] = True
    cohere: Annotated[
        bool, Meta(description="Cohere's paths: /v2/embed, /v1/embed and /v1/detokenize, and its form of /v1/tokenize.")
    ] = True
