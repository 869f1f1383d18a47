"""The interface between a batch and the road of ordinary requests: `gateway/api/batch_road.py` implements it, over the same doors.

The room of batches knows nothing of HTTP; requests are bytes here, and replies are.
"""

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from gateway.access.keys.key import Caller
from gateway.errors import GatewayError

Asked: TypeAlias = Any  # a parsed body, which only the endpoint that parsed it looks into
# Whether a gateway may work on a batch: its models are the same, they may be (they are not loaded yet), or they are others.
Standing = Literal["same", "unknown", "other"]


class OtherVectors(Exception):
    """The model gives other vectors than when the batch was begun. The message names the model and what changed."""


@dataclass(frozen=True, slots=True)
class Use:
    """What requests of one model used."""

    model: str
    num_requests: int
    num_inputs: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Answers:
    """The bodies of the replies, as bytes of JSON, in the order of the requests; and what they used."""

    bodies: list[bytes]
    use: Use


class BatchRoad(Protocol):
    """How requests of batches are answered: by the configuration in effect. Used on the event loop, except `parse`."""

    def caller_of(self, key_id: str) -> Caller | None:
        """Returns the key's owner, or None if it was revoked or has expired. Raises StoreUnavailable if nobody can tell."""

    def default_model(self, endpoint: str, caller: Caller) -> str | None:
        """The model of requests that name none."""

    @property
    def max_line_bytes(self) -> int:
        """As large as a request's body may be."""

    def is_far(self, models: dict[str, str]) -> bool:
        """Whether one of the models computes on another machine, so that several slices at once are faster."""

    def standing(self, fingerprints: dict[str, str]) -> Standing:
        """Compares the models with those of a batch, by the names that its requests have."""

    def keep(self, models: Iterable[str]) -> AbstractContextManager[None]:
        """A block in which the model of a batch stays loaded. Those of a batch with several need not fit into memory together."""

    async def fingerprint(self, endpoint: str, model: str, caller: Caller) -> str:
        """Loads a model. Returns its fingerprints, spaces between them. Raises UnknownModel, WrongModelKind, or Unavailable."""

    def other_vectors(self, fingerprints: dict[str, str]) -> str:
        """Says, for clients, which of these models gives other vectors now."""

    def parse(self, endpoint: str, body: bytes, *, default_model: str | None) -> Asked:
        """Parses a body as the endpoint does. In a thread. Raises ClientError."""

    def group_of(self, asked: Asked) -> Hashable:
        """Requests with equal groups may be answered together. None: this one is answered alone."""

    def num_inputs(self, asked: Asked) -> int:
        """The number of its texts."""

    def control_of(self, asked: Asked) -> Asked:
        """The same request for a text that any model can embed."""

    async def answer(self, asked: list[Asked], caller: Caller, *, fingerprints: dict[str, str], request_id: str) -> Answers:
        """Answers requests of one group. Raises a GatewayError for all of them, OtherVectors, and what a network raises."""

    def error_body(self, error: GatewayError) -> bytes:
        """The body of a reply that is an error."""

    def record(self, caller: Caller, use: Use) -> None:
        """Counts what a key used, at the price of batches. Called once for each request, after its reply is stored."""
