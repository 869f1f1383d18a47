"""Other servers' protocols: each door translates a body to a request of ours, and our reply and errors to its own words.

A door adds no step to a request's road. Access, limits and the bounds of work are those of /v1/embeddings.
"""

from typing import Any

from litestar.handlers import HTTPRouteHandler

from gateway.api.door import Door
from gateway.api.doors import cohere, ollama, tei, tei_sparse, tei_tokenize
from gateway.api.error_format import ErrorFormat
from gateway.api.inference import InferenceHandler
from gateway.config import DoorSettings


def doors(handler: InferenceHandler, settings: DoorSettings) -> list[Door[Any]]:
    """The doors that are open, by the settings."""
    return [
        *((*tei.doors(handler), *tei_sparse.doors(handler), *tei_tokenize.doors(handler)) if settings.tei else ()),
        *(cohere.doors(handler) if settings.cohere else ()),
        *(ollama.doors(handler) if settings.ollama else ()),
    ]


def routes(handler: InferenceHandler, settings: DoorSettings, *, has_page: bool) -> list[HTTPRouteHandler]:
    """The routes of open doors that compute nothing. `has_page`: `/` is our page."""
    return [*(ollama.routes(handler, has_page=has_page) if settings.ollama else ())]


def error_formats(settings: DoorSettings) -> dict[str, ErrorFormat]:
    """The error formats of paths that are no doors, and of all paths below a first segment that ends in "/".

    "/tei" before a path that other servers have too: it, below /tei/{model}.
    """
    return {**(tei.ERROR_FORMATS if settings.tei else {}), **(ollama.ERROR_FORMATS if settings.ollama else {})}
