"""sentence-transformers' Router, for asymmetric models: each text takes the route of its task.

All routes must share one tokenizer, since a text is tokenised once, before it is queued for the device.
"""

from pathlib import Path
from typing import Any, Literal, get_args

from gateway.config import Task
from gateway.errors import OperatorError

TEXT = "text"  # the modality, as Router calls it


def is_router(module: Any) -> bool:
    return type(module).__name__ == "Router" and hasattr(module, "sub_modules")


def tasks_of(model: Any) -> tuple[Task, ...]:
    """The tasks that the model has a route for; empty if it has no Router."""
    routers = [module for module in model if is_router(module)]
    return tuple(task for task in get_args(Task) if routers and all(_has_route(router, task) for router in routers))


def route_names(model: Any, task: Task | Literal[""]) -> tuple[str | None, ...]:
    """The route that a text of this task takes in each Router of the model."""
    return tuple(_route_name(module, task or None) for module in model if is_router(module))


def _route_name(router: Any, task: Task | None) -> str | None:
    """None if there is none."""
    try:
        route: str | None = router._resolve_route(task=task, modality=TEXT)  # noqa: SLF001 - Router has no public name for it
    except ValueError:
        return None
    return route


def _has_route(router: Any, task: Task | None) -> bool:
    return _route_name(router, task) is not None


def _routed_modules(router: Any) -> list[Any]:
    return [module for route in router.sub_modules.values() for module in route]


def always_ends_in(module: Any, kind: str) -> bool:
    """Whether the last module, or the last one of every route, is of this class."""
    if is_router(module):
        return all(type(list(route)[-1]).__name__ == kind for route in module.sub_modules.values())
    return type(module).__name__ == kind


def refuse_unequal_routes(model: Any, folder: Path) -> None:
    """Raises OperatorError if the routes differ in tokenizer or length, leave prompts out of pooling, or lack a default route."""
    for router in filter(is_router, model):
        if not _has_route(router, None):
            raise OperatorError(f"the model in {folder} has no default route, for texts whose request has no input_type")
        if any(not getattr(module, "include_prompt", True) for module in _routed_modules(router)):
            raise OperatorError(f"the model in {folder} leaves prompts out of pooling inside a route, which is not supported")
        if router is not model[0]:  # one network has read the text before
            continue
        inputs = [next(iter(route)) for route in router.sub_modules.values()]
        tokenizers = [getattr(getattr(each, "tokenizer", None), "backend_tokenizer", None) for each in inputs]
        texts = {each.to_str() if each is not None else None for each in tokenizers}
        if None in texts or len(texts) > 1:
            raise OperatorError(f"the routes of the model in {folder} have different tokenizers, which is not supported")
        if len({each.max_seq_length for each in inputs}) > 1:
            raise OperatorError(f"the routes of the model in {folder} read texts of different lengths, which is not supported")
