"""Other servers' protocols: each door translates a body to a request of ours, and our reply and errors to its own words.

A door adds no step to a request's road, and no limit is its own: what is refused at /v1/embeddings is refused here.
"""

from typing import Any

from gateway.api.doors import cohere
from gateway.api.inference import Door, InferenceHandler
from gateway.config import DoorSettings


def doors(handler: InferenceHandler, settings: DoorSettings) -> list[Door[Any]]:
    """The doors that are open, by the settings."""
    return [*(cohere.doors(handler) if settings.cohere else ())]
