"""What the fronts are told of models: their state, and whether a front may tokenise for them."""

from gateway.calls.engine_message import ModelState
from gateway.embedding.model import Model
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.tokenizer import Tokenizer

# Measured: 250,000 pieces of a Unigram take 493 MB, 150,000 words of a BPE 131, 120,000 of a WordPiece 48, MiniLM's 30,522 13.
BYTES_PER_WORD = {"Unigram": 2000, "BPE": 900, "WordPiece": 400}
# Of a tokenizer that each front has; sixteen have it sixteen times. Qwen's BPE is shared, XLM-R's Unigram is not: for such a model
# the engine process tokenises, in threads.
MAX_SHARED_BYTES = 150_000_000


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
    return local is None or model.state != "ready" or _tokenizer_bytes(local.tokenizer) > MAX_SHARED_BYTES


def _tokenizer_bytes(tokenizer: Tokenizer) -> int:
    """The memory of a tokenizer, by its kind and vocabulary; of an unknown kind that of a BPE."""
    return (tokenizer.max_id + 1) * BYTES_PER_WORD.get(type(tokenizer.fast.model).__name__, BYTES_PER_WORD["BPE"])


def local_of(model: Model) -> LocalEmbedder | None:
    """The model's embedder, if it is on this machine: the one whose windows a front may cut."""
    return model.built if isinstance(model.built, LocalEmbedder) else None
