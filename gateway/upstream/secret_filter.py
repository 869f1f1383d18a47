"""Filter for an upstream's error codes: those that contain a secret of ours, or repeat a client's text, are never shown."""

import base64
from collections.abc import Iterable

MIN_TEXT_CHARS = 4  # of an input, or a part of a secret, to be searched for in a code: shorter ones are in many words
MAX_TEXT_CHARS = 64  # a code has no more, so longer texts cannot be in it


class SecretFilter:
    """The secrets of all rows of one gateway. Used only on the event loop."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: str) -> None:
        """Adds a key, or credentials as user:password. Its parts and its form in a header are secrets too."""
        encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
        parts = (part for part in (*secret.split(":"), *secret.split(), encoded) if len(part) >= MIN_TEXT_CHARS)
        self._secrets |= {part.casefold() for part in (secret, *parts) if part}

    def passed(self, code: str | None, texts: Iterable[str] = ()) -> str | None:
        """Returns the code, or None if it equals or contains a secret, or repeats one of the texts of its request."""
        if code is None:
            return None
        folded = code.casefold()
        if any(secret in folded for secret in self._secrets):
            return None
        repeats = any(_is_repeated(text.strip().casefold(), folded) for text in texts if len(text) <= MAX_TEXT_CHARS)
        return None if repeats else code


def _is_repeated(text: str, code: str) -> bool:
    return text == code or (len(text) >= MIN_TEXT_CHARS and text in code)
