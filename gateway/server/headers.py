"""Headers as ASGI has them: pairs of bytes, names in lower case."""

Headers = list[tuple[bytes, bytes]]


def value_of(headers: Headers, name: bytes) -> bytes | None:
    """Returns the value of the first header of this name, or None."""
    return next((value for found, value in headers if found == name), None)
