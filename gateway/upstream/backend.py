"""The backends whose models are on other servers, one for each dialect."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from gateway.embedding.backend import Backend, BackendContext, Compiled, CompileProgress, ConnectionCheck, Preview
from gateway.upstream.dialect import Dialect
from gateway.upstream.ollama import OLLAMA
from gateway.upstream.openai import OPENAI
from gateway.upstream.rerank import RERANK
from gateway.upstream.settings import AnySettings, OllamaSettings, OpenAISettings, TEISettings
from gateway.upstream.tei import TEI, TEI_RERANK

if TYPE_CHECKING:
    from gateway.upstream.embedder import UpstreamEmbedder


class _UpstreamBackend(Backend):
    """A backend for the servers of one dialect, and named like it. `rerank` is their dialect for a row of `task = "rerank"`."""

    def __init__(self, dialect: Dialect, settings: type[AnySettings], rerank: Dialect | None = None) -> None:
        self.dialect = dialect
        self.rerank = rerank
        self.name = dialect.name
        self.settings = settings

    def dialect_of(self, settings: AnySettings) -> Dialect:
        is_reranker = getattr(settings, "task", "embed") == "rerank"
        return self.rerank if is_reranker and self.rerank is not None else self.dialect

    def build(self, settings: AnySettings, context: BackendContext) -> "UpstreamEmbedder":
        """Imports the embedder only here: a gateway without upstreams saves aiohttp's 8 MB, and 80 ms of its start."""
        from gateway.upstream.embedder import UpstreamEmbedder  # noqa: PLC0415 - as the docstring says

        return UpstreamEmbedder(settings, self.dialect_of(settings), context)

    def check(self, settings: AnySettings, context: BackendContext) -> None:
        """Raises OperatorError if a secret is missing, or the file of certificate authorities cannot be read."""
        self.build(settings, context).check()

    def connections(self, settings: AnySettings, context: BackendContext) -> Iterator[ConnectionCheck]:
        """Yields one check for each endpoint."""
        embedder = self.build(settings, context)
        for endpoint in embedder.endpoints.endpoints:
            yield ConnectionCheck(f"models[{context.name}] at {endpoint.label}", partial(embedder.reach, endpoint))

    def compile(self, settings: AnySettings, context: BackendContext, progress: CompileProgress) -> Iterator[Compiled]:  # noqa: ARG002
        yield Compiled(context.name, "nothing to compile: it is not served on this machine")

    def preview(self, settings: AnySettings, context: BackendContext) -> Preview:  # noqa: ARG002
        return Preview(source=self.name, kind=self.dialect_of(settings).kind)


UPSTREAM_BACKENDS = (
    _UpstreamBackend(OPENAI, OpenAISettings, RERANK),
    _UpstreamBackend(OLLAMA, OllamaSettings),
    _UpstreamBackend(TEI, TEISettings, TEI_RERANK),
)
