"""What the fronts are told of models: their state, and whether a front may tokenise for them."""

from gateway.calls.engine_message import ModelState
from gateway.embedding.model import Model
from gateway.engine.embedder import LocalEmbedder

MAX_SHARED_VOCABULARY = 100_000  # a tokenizer of 250,000 words takes 450 MB, and would be in each front


def state_of(model: Model) -> ModelState:
    is_described = model.state == "ready"
    return ModelState(
        state=model.state,
        health=model.embedder.health(),
        description=model.embedder.describe() if is_described else None,
        is_tokenized_here=is_tokenized_here(model),
    )


def is_tokenized_here(model: Model) -> bool:
    """Whether only the engine process tokenises for the model: it is on another server, not loaded, or its tokenizer is large."""
    local = local_of(model)
    return local is None or model.state != "ready" or local.tokenizer.max_id >= MAX_SHARED_VOCABULARY


def local_of(model: Model) -> LocalEmbedder | None:
    """The model's embedder, if it is on this machine: the one whose windows a front may cut."""
    return model.built if isinstance(model.built, LocalEmbedder) else None
