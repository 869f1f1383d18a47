"""The catalog: finds models by name."""

from collections.abc import Iterable, Iterator

from gateway.config import CATCH_ALL
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.embedding.model_use import ModelUse
from gateway.errors import ConfigurationError, UnknownModel

__all__ = ["Catalog", "Model"]


class Catalog:
    """All models by name and alias. Immutable; only the models' load state changes."""

    def __init__(self, models: Iterable[Model], loader: Loader | None = None) -> None:
        self.models = list(models)
        self.loader = loader or Loader()
        self.by_name: dict[str, Model] = {}
        self.catch_all: Model | None = None
        for model in self.models:
            for name in model.row.names:
                if name in self.by_name:
                    raise ConfigurationError(f"models[{model.name}]: the name '{name}' is used twice")
                self.by_name[name] = model
            if model.row.is_catch_all:
                if self.catch_all is not None:
                    raise ConfigurationError(f"models[{model.name}]: the alias '{CATCH_ALL}' is used twice")
                self.catch_all = model

    def __iter__(self) -> Iterator[tuple[str, Model]]:
        return iter(self.by_name.items())

    def find(self, name: str) -> Model:
        """The model of this name or alias, else the one with the alias "*". Raises UnknownModel if there is neither."""
        model = self.by_name.get(name, self.catch_all)
        if model is None:
            raise UnknownModel(name)
        return model

    async def ensure_ready(self, model: Model, name: str, *, deadline: float) -> None:
        """Returns once the model, requested as `name`, can serve. Raises ModelLoading, or ModelUnavailable if it failed."""
        await self.loader.ensure_ready(model, name, deadline=deadline)

    async def acquire(self, model: Model, name: str, *, deadline: float) -> ModelUse:
        """Does what `ensure_ready` does; the model stays loaded until the use is released."""
        return await self.loader.acquire(model, name, deadline=deadline)

    @property
    def ready(self) -> bool:
        """Whether no model is still loading and at least one has not failed: one that failed does not take the others down."""
        return not self.loading and any(model.state != "failed" for model in self.models)

    @property
    def loading(self) -> list[Model]:
        """The models that must still load before the gateway is ready. Those with `load = "first_use"` are never among them."""
        return [model for model in self.models if model.row.load == "start" and model.state == "loading"]
