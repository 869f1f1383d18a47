"""Ignores `Upgrade` offers (RFC 9110, 7.8): such a client is served in HTTP/1.1. Java's HttpClient offers HTTP/2 with each request.

httptools stops at the end of such headers, as if the other protocol began there, and the body would be lost. So the head is parsed
again, without the offer.
"""

from collections.abc import Callable
from typing import Protocol

import httptools

OFFERS = {b"upgrade", b"http2-settings"}


class ParserCallbacks(Protocol):
    """The object that the parser calls back: the part with the parsed head."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class RequestParser:
    """httptools' request parser. While `is_unsupported_upgrade` is true, ignore its callbacks: it parses that head again."""

    should_upgrade: Callable[[], bool]
    should_keep_alive: Callable[[], bool]
    get_method: Callable[[], bytes]
    get_http_version: Callable[[], str]

    def __init__(self, reader: ParserCallbacks) -> None:
        self.reader = reader
        self.reset()

    def reset(self) -> None:
        parser = httptools.HttpRequestParser(self.reader)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does: bytes after a last request are ignored
        self.feed = parser.feed_data
        self.should_upgrade, self.should_keep_alive = parser.should_upgrade, parser.should_keep_alive
        self.get_method, self.get_http_version = parser.get_method, parser.get_http_version

    @property
    def is_unsupported_upgrade(self) -> bool:
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: bytes | memoryview) -> None:
        """Parses `data`. Raises httptools.HttpParserError, and HttpParserUpgrade after a CONNECT."""
        while data:
            try:
                self.feed(data)
            except httptools.HttpParserUpgrade as offer:
                if not self.is_unsupported_upgrade:
                    raise
                head = self.head()
                self.reset()
                self.feed(head)
                data = memoryview(data)[offer.args[0] :]
            else:
                return

    def head(self) -> bytes:
        """Returns the head as it was parsed, without the offer."""
        lines = [b"%s %s HTTP/%s" % (self.get_method(), self.reader.url, self.get_http_version().encode())]
        for name, value in self.reader.headers:
            if name == b"connection":
                kept = b",".join(token for token in value.split(b",") if token.strip().lower() not in OFFERS)
                lines += [b"connection: " + kept] if kept.strip() else []
            elif name not in OFFERS:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"
