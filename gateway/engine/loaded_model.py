"""What loading a model gives, whichever runtime it is for."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.engine.encoder import Encoder
from gateway.engine.fidelity import Proof
from gateway.engine.identity import Identity


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The encoders of one model, one a device thread, and the identity of its files. `afterwards` is called once they serve.

    `num_bytes` is their memory, and `free` returns what the runtime keeps of it once they are dropped.

    `fidelity` and `proof` are None for encoders that were not measured, as in tests. `fallback` says which runtimes or precisions
    were not faithful enough, with their worst cosine, or could not be loaded. `nearest_kept` is the share of the ten nearest that
    an 8-bit network's vectors keep.
    """

    encoders: list[Encoder]
    identity: Identity
    fidelity: float | None = None
    proof: Proof | None = None
    fallback: str = ""
    afterwards: Callable[[], None] = lambda: None
    num_bytes: int = 0
    free: Callable[[], None] = lambda: None
    nearest_kept: float | None = None
