"""All modules of a sentence-transformers model as one function of tensors: what torch runs, and what is traced."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer

from gateway.config import Task
from gateway.engine.router import TEXT, is_router, route_names


class Pipeline(torch.nn.Module):
    """Returns the vectors that `encode` gives, shape (n, dimensions).

    With a `truncate_dim`, from config_sentence_transformers.json, these are the first components, not normalised again: `encode`
    does that only with `normalize_embeddings`.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self.has_routes = any(map(is_router, model))
        self.truncate_dim = model.truncate_dim

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pooling_mask: torch.Tensor | None = None,
        task: str = "",
    ) -> torch.Tensor:
        return self.truncate(self.whole(input_ids, attention_mask, pooling_mask, task))

    def truncate(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors if self.truncate_dim is None else vectors[:, : self.truncate_dim]

    def whole(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pooling_mask: torch.Tensor | None = None,
        task: str = "",
    ) -> torch.Tensor:
        """The vectors before `truncate_dim`. `task` is for a Router."""
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        vectors: torch.Tensor = self.behind(self.model, features, pooling_mask, task)["sentence_embedding"]
        return vectors

    def behind(
        self, modules: Iterable[torch.nn.Module], features: dict[str, Any], pooling_mask: torch.Tensor | None, task: str = ""
    ) -> dict[str, Any]:
        """The features behind these modules. With a `pooling_mask`, pooling that leaves prompts out reads it as attention mask."""
        features = features | ({"task": task or None, "modality": TEXT} if self.has_routes else {})
        for module in modules:
            if pooling_mask is not None and leaves_prompt_out(module):
                features["attention_mask"] = pooling_mask
            features = module(features)
        return features


class RoutedPipeline(torch.nn.Module):
    """A Pipeline with routes, for tracing, which follows no choice: every route computes every row, and a row's own is kept.

    What stands before the first Router is computed once: in most such models, the network.
    """

    def __init__(self, pipeline: Pipeline, tasks: tuple[Task, ...]) -> None:
        super().__init__()
        self.pipeline = pipeline
        every: tuple[Task | Literal[""], ...] = ("", *tasks)
        self.names = [route_names(pipeline.model, task) for task in every]
        modules = list(pipeline.model)
        self.split = next(place for place, module in enumerate(modules) if is_router(module))
        self.routes = dict(zip(self.names, every, strict=True))  # a task for each: several may take the same

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        """`more` is the pooling mask, if the network reads one, and the route of each row, as `pad` gives them."""
        *masks, route = more
        pooling_mask = masks[0] if masks else None
        modules = list(self.pipeline.model)
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        before = self.pipeline.behind(modules[: self.split], features, pooling_mask)
        found = {
            names: self.pipeline.behind(modules[self.split :], before, pooling_mask, task)["sentence_embedding"]
            for names, task in self.routes.items()
        }
        chosen = found[self.names[0]]
        for number, names in enumerate(self.names):
            chosen = torch.where(route[:, :1] == number, found[names], chosen)
        return self.pipeline.truncate(chosen)


def leaves_prompt_out(module: torch.nn.Module) -> bool:
    return not getattr(module, "include_prompt", True)
