"""Model names to embedders."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.config import ModelRow
from gateway.embedding.embedder import Embedder
from gateway.embedding.fingerprint import changes
from gateway.errors import ConfigurationError, ModelLoading, OperatorError, Overloaded, UnknownModel

FAILED_SECONDS = 30  # about what a restart takes, which /livez then asks for


@dataclass(frozen=True, slots=True)
class Model:
    """A row of the configuration and the embedder that serves it. `built` is the backend's own, without what stands around it."""

    row: ModelRow
    embedder: Embedder
    built: Embedder | None = None

    @property
    def name(self) -> str:
        return self.row.name

    async def start(self) -> None:
        """Starts the embedder. Raises OperatorError, a fingerprint other than the pinned one included."""
        await self.embedder.start()
        pinned, found = self.row.fingerprint, self.embedder.describe().fingerprint
        if pinned is not None and pinned != found:
            raise OperatorError(
                f"models[{self.name}].fingerprint: these are not the pinned vectors:"
                f" {' and '.join(changes(pinned, found))} changed; pinned {pinned}, found {found}"
            )


class Catalog:
    """All models by name and alias. What it holds never changes after it was made."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = list(models)
        self.by_name: dict[str, Model] = {}
        for model in self.models:
            for name in (model.row.name, *model.row.aliases):
                if name in self.by_name:
                    raise ConfigurationError(f"models[{model.name}]: the name '{name}' is used twice")
                self.by_name[name] = model

    def __iter__(self) -> Iterator[tuple[str, Model]]:
        return iter(self.by_name.items())

    def find(self, name: str) -> Model:
        """The model that serves `name`. Raises UnknownModel, ModelLoading while it cannot serve yet, Overloaded once it failed."""
        model = self.by_name.get(name)
        if model is None:
            raise UnknownModel(name)
        state = model.embedder.health().state
        if state == "failed":
            raise Overloaded("This model has failed.", retry_after_seconds=FAILED_SECONDS)
        if state != "ready":
            raise ModelLoading(name)
        return model

    @property
    def ready(self) -> bool:
        return all(model.embedder.health().state == "ready" for model in self.models)
