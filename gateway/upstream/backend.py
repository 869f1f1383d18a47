"""The backends whose models are on other servers: a row each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.embedding.backend import BackendContext
from gateway.upstream.dialect import Dialect
from gateway.upstream.ollama import OLLAMA
from gateway.upstream.openai import OPENAI
from gateway.upstream.settings import AnySettings, OllamaSettings, OpenAISettings, TEISettings
from gateway.upstream.tei import TEI

if TYPE_CHECKING:
    from gateway.upstream.embedder import UpstreamEmbedder


@dataclass(frozen=True, slots=True)
class UpstreamBackend:
    """Follows Backend, by the name of its dialect."""

    dialect: Dialect
    settings: type[AnySettings]

    @property
    def name(self) -> str:
        return self.dialect.name

    def build(self, settings: AnySettings, context: BackendContext) -> "UpstreamEmbedder":
        """A gateway without other servers does not import aiohttp: 8 MB, and 80 ms of its start."""
        from gateway.upstream.embedder import UpstreamEmbedder  # noqa: PLC0415 - as said

        return UpstreamEmbedder(settings, self.dialect, context)


UPSTREAM_BACKENDS = (
    UpstreamBackend(OPENAI, OpenAISettings),
    UpstreamBackend(OLLAMA, OllamaSettings),
    UpstreamBackend(TEI, TEISettings),
)
