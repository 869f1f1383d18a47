"""Builds a row's transport options. Secrets are read here and nowhere else, and each is added to the secret filter."""

from typing import Any

from gateway.config import secret_value
from gateway.errors import ConfigurationError, OperatorError
from gateway.upstream.secret_filter import SecretFilter
from gateway.upstream.settings import AnySettings
from gateway.upstream.transport import TransportOptions

MIN_PLAIN_CHARS = 8  # of a plain value, in a header or a query, that is treated as a secret


def transport_options(settings: AnySettings, name: str, secrets: SecretFilter) -> TransportOptions:
    """Builds the options of the row `name`. Raises OperatorError if a secret is missing, or cannot be sent."""
    headers = {
        header: value if isinstance(value, str) else secret(value, header, name) for header, value in settings.headers.items()
    }
    key = secret(settings.key, "key", name) if settings.key is not None else None
    credentials = secret(settings.proxy_credentials, "proxy_credentials", name) if settings.proxy_credentials else None
    for header, value in headers.items():
        if not isinstance(settings.headers[header], str) or len(value) >= MIN_PLAIN_CHARS:
            secrets.add(value)
    for value in (key, credentials, *(each for each in getattr(settings, "query", {}).values() if len(each) >= MIN_PLAIN_CHARS)):
        if value is not None:
            secrets.add(value)
    if key is not None:
        headers[settings.key_header] = f"Bearer {key}" if settings.key_header.lower() == "authorization" else key
    return TransportOptions(
        headers,
        settings.connect_timeout_seconds,
        settings.read_timeout_seconds,
        settings.max_connections,
        settings.proxy,
        credentials,
        settings.ca_file,
    )


def secret(place: Any, setting: str, name: str) -> str:
    """Reads a secret. Raises OperatorError, which never contains the secret."""
    try:
        value = secret_value(place).strip()
    except ConfigurationError as error:
        raise OperatorError(f"models[{name}].{setting}: {error}") from None
    if not value or not value.isprintable() or not (value.isascii() or setting == "proxy_credentials"):
        raise OperatorError(f"models[{name}].{setting}: what is there cannot be sent in a header")
    return value
