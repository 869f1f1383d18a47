"""Identity of a model on another server: what decides its vectors, its fingerprint, and its description."""

import time
from dataclasses import dataclass
from typing import Any

from gateway.embedding.embedder import Description
from gateway.embedding.fingerprint import Fingerprint, digest
from gateway.embedding.prompt import instruction_format_of
from gateway.upstream.client import Known
from gateway.upstream.dialect import Dialect, UpstreamLimits
from gateway.upstream.settings import AnySettings

DEFAULT_MAX_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class RowIdentity:
    """The identity of one row; `model` is the model's name on its server."""

    settings: AnySettings
    dialect: Dialect
    model: str

    @property
    def input_types(self) -> dict[str, dict[str, Any]]:
        """The fields that a request's `input_type` adds to the body, if the protocol has any."""
        return getattr(self.settings, "input_types", {})

    def of_row(self, reported: UpstreamLimits) -> str:
        """A digest of all that decides the vectors and is not measured. Rows with the same digest and probes share a cache."""
        settings = self.settings
        own = (settings.dimensions, settings.prompts, settings.long_input, getattr(settings, "extra_body", {}))
        way = (settings.addresses, getattr(settings, "query", {}), settings.headers, settings.key)
        kind = "reranker" if self.dialect.kind == "reranker" else None
        return digest(self.dialect.name, self.model, reported.identity, own, way, *filter(None, [self.input_types, kind]))

    def fingerprint(self, reported: UpstreamLimits, known: Known, signature: str) -> str:
        """Another gateway's own, if nothing of ours changes its vectors; else one of the server's report and of the vectors."""
        extra = getattr(self.settings, "extra_body", {})
        if known.theirs and not (self.settings.prompts or self.settings.dimensions or extra or self.input_types):
            return known.theirs
        fingerprint = Fingerprint(
            weights=signature,
            tokenizer=digest(self.dialect.name, self.model, known.theirs, reported.identity, known.dimensions),
            pooling=digest(extra),
            prompts=digest(self.settings.prompts, *filter(None, [self.input_types])),
            long_input=digest(self.settings.long_input),
            runtime=f"{self.dialect.name}-unknown",
        )
        return str(fingerprint)

    def describe(self, reported: UpstreamLimits, dimensions: int) -> Description:
        return Description(
            backend=self.dialect.name,
            source=self.model,
            dimensions=dimensions,
            max_tokens=self.settings.max_tokens or reported.max_tokens or DEFAULT_MAX_TOKENS,
            long_input=self.settings.long_input,
            fingerprint="",
            runtime="upstream",
            device="unknown",
            precision="unknown",
            created=int(time.time()),
            kind=self.dialect.kind,
            prompts=tuple(dict.fromkeys((*(name for name, text in self.settings.prompts.items() if text), *self.input_types))),
            takes_instruction=bool(self.settings.instruction_format or instruction_format_of(self.settings.prompts)),
        )
