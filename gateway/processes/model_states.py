"""What the fronts are told of models: their state, and whether a front may tokenise for them."""

from gateway.calls.engine_message import ModelState
from gateway.embedding.model import Model
from gateway.engine.embedder import LocalEmbedder

# Of a tokenizer that each front has; sixteen have it sixteen times. Qwen's BPE is shared, XLM-R's Unigram is not: for such a model
# the engine process tokenises, in threads.
MAX_SHARED_BYTES = 150_000_000


def state_of(model: Model) -> ModelState:
    return ModelState(
        state=model.state,
        health=model.embedder.health(),
        description=model.embedder.describe() if model.is_described else None,
        is_tokenized_here=is_tokenized_here(model),
    )


def is_tokenized_here(model: Model) -> bool:
    """Whether only the engine process tokenises for the model: it is on another server, not loaded, or its tokenizer is large."""
    local = local_of(model)
    return local is None or model.state != "ready" or local.tokenizer.num_bytes > MAX_SHARED_BYTES


def local_of(model: Model) -> LocalEmbedder | None:
    """The model's embedder, if it is on this machine: the one whose windows a front may cut."""
    return model.built if isinstance(model.built, LocalEmbedder) else None
