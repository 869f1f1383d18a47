"""Models' names as Ollama's clients write and read them: `name:tag`, in any case; the tag `latest` may be left out.

Source: types/model/name.go and getExistingName (server/routes.go) of ollama/ollama.
"""

import re
from collections.abc import Iterator

from gateway.access.keys.key import Caller
from gateway.embedding.catalog import Catalog, Model
from gateway.errors import InvalidValue

LATEST = ":latest"
DEFAULTS = ("registry.ollama.ai/", "library/")  # host and namespace of a name that says neither
VALID = re.compile(r"(([a-z]+://)?\w[-\w.:]{0,349}/)?(\w[-\w]{0,79}/)?\w[-\w.]{0,79}(:\w[-\w.]{0,79})?", re.ASCII)


def tagged(name: str) -> str:
    """The name with a tag. A colon before the last slash is part of a host."""
    return name if ":" in name[name.rfind("/") + 1 :] else f"{name}{LATEST}"


def is_other_kind(model: Model) -> bool:
    """Whether it is known to give something else than vectors of texts, as a reranker does."""
    return model.state == "ready" and model.describe().kind != "embedder"


class OllamaNames:
    """Finds a catalog's models by such names, among those that a key may use: no other answer shows that a model exists."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.by_shape: dict[str, str] = {}
        for name, _ in catalog:
            self.by_shape.setdefault(_shape(name), name)

    def find(self, sent: str, caller: Caller) -> str:
        """Returns the model's name in the catalog; `sent` itself if there is no such model.

        Raises InvalidValue for a name that no model of Ollama's can have.
        """
        name = sent if sent in self.catalog.by_name else self.by_shape.get(_shape(sent))
        if name is not None and caller.may_use(self.catalog.by_name[name].row.names):
            return name
        if self.catalog.catch_all is None and not VALID.fullmatch(sent):
            raise InvalidValue("invalid model name", param="model")
        return sent

    def listed(self, caller: Caller) -> Iterator[tuple[str, Model]]:
        """Yields what the key may use that gives vectors, as far as that is known, under every name, with its tag."""
        for name, model in self.catalog:
            if caller.may_use(model.row.names) and not is_other_kind(model):
                shown = tagged(name)
                yield (name if shown in self.catalog.by_name else shown), model


def _shape(name: str) -> str:
    shape = name.casefold()
    for default in DEFAULTS:
        shape = shape.removeprefix(default)
    return shape.removesuffix(LATEST)
