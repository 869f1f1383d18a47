"""`[server]` and `[page]`: addresses, bounds, timeouts, and the page for browsers."""

import ipaddress
from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.listen_address import ListenAddress, listen_addresses
from gateway.config.setting import KB, MB, MINUTES, YEAR, Settings, count, positive

MAX_WORKERS = 64


class ServerSettings(Settings, frozen=True):
    host: Annotated[
        str | tuple[str, ...],
        Meta(
            description='The address to listen on, or several, as a list. 0.0.0.0 is every interface of IPv4; "::" of IPv6, and of'
            ' IPv4 too where no IPv4 address stands beside it; "unix:/run/gateway.sock" a Unix socket.'
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes a free one and says which.")] = 8000
    workers: Annotated[
        Literal["auto"] | Annotated[int, Meta(ge=1, le=MAX_WORKERS)],
        Meta(
            description='Processes that speak HTTP, beside one that computes; at 1 one process does both. "auto" is 1 on machines'
            " of up to 7 cores, on larger ones a quarter of the cores, or with a GPU all but one; at least 2, at most 16."
        ),
    ] = "auto"
    unix_socket_mode: Annotated[
        str, Meta(pattern="^0?[0-7]{3}$", description="Who may connect to Unix sockets: their files' permissions, in octal.")
    ] = "660"
    max_body_bytes: Annotated[int, count(description="Larger request bodies are refused with 413.")] = 16 * MB
    max_header_bytes: Annotated[int, count(description="Larger request headers, all together, are refused with 431.")] = 32 * KB
    header_timeout_seconds: Annotated[
        float, positive(description="Request headers that take longer to arrive are refused with 408.")
    ] = 10.0
    body_timeout_seconds: Annotated[float, positive(description="A body that takes longer to arrive is refused with 408.")] = 30.0
    request_timeout_seconds: Annotated[
        float, positive(description="A request that has waited and run longer than this is answered 503.")
    ] = 5.0 * MINUTES
    drain_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=YEAR,
            description="After SIGTERM, how long requests are still served while /readyz says no, so that balancers notice.",
        ),
    ] = 0.0
    drain_timeout_seconds: Annotated[
        float,
        positive(description="After that delay, how long requests under way may take to finish before they are cut."),
    ] = 30.0
    max_concurrent_requests: Annotated[
        int,
        count(
            description="Requests for vectors, scores or tokens held at once, from their first byte to their reply; beyond it 503."
        ),
    ] = 1024
    max_connections: Annotated[
        int,
        count(
            description="Connections open at once, idle ones included. One more closes the one that has waited longest for its next"
            " request; where requests in flight hold them all it is answered 503, but /livez, /readyz, /health and /metrics are"
            " answered."
        ),
    ] = 4096
    max_connections_per_address: Annotated[
        Annotated[int, count()] | None,
        Meta(
            description="Of these, how many from one address (of IPv6 one /64 network), in the same way; no bound without it."
            " `trusted_proxies` are exempt: behind a proxy, or a NAT named there, are many clients."
        ),
    ] = None
    keep_alive_seconds: Annotated[
        float, positive(description="An idle connection is closed after this long. Proxies keep theirs for 60 s.")
    ] = 75.0
    send_timeout_seconds: Annotated[
        float, positive(description="A client that reads nothing (on Linux: less than 64 KB) of its reply within this is cut off.")
    ] = 30.0
    max_unsent_bytes: Annotated[
        int, count(description="Replies that clients have not read yet, all together; beyond it the slowest reader is cut off.")
    ] = 256 * MB
    max_buffered_bytes: Annotated[int, count(description="Request bodies held in memory at once, all together; beyond it 503.")] = (
        256 * MB
    )

    default_model: Annotated[
        str | None, Meta(description="The model of requests that name none. Without it they are refused with 400.")
    ] = None
    default_reranker: Annotated[
        str | None,
        Meta(description="The reranker of requests that name none. Without it the only reranker, if there is one alone."),
    ] = None
    cors_origins: Annotated[
        tuple[str, ...], Meta(description='Origins whose pages may call this server from a browser; ["*"] is every origin.')
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Proxies, or their networks, whose x-forwarded-for is believed, for the log's `client` alone, and which"
            " max_connections_per_address does not hold."
        ),
    ] = ()
    docs: Annotated[bool, Meta(description="Whether /docs, /redoc and /openapi.json are served.")] = True
    watch_config: Annotated[
        bool,
        Meta(
            description="Whether a changed configuration file is loaded by itself, whole or not at all. SIGHUP always does it."
            " Some settings need a restart: deploy/operations.md, Tuning, lists them, and a file that changes one is refused whole."
        ),
    ] = True

    def __post_init__(self) -> None:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must be at least max_body_bytes")
        listen_addresses(self.host)  # its ValueError names the part that is no address
        for proxy in self.trusted_proxies:
            ipaddress.ip_network(proxy, strict=False)  # its ValueError names the part that is no network

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The addresses to listen on; at least one."""
        return listen_addresses(self.host)


class PageSettings(Settings, frozen=True):
    enabled: Annotated[
        bool, Meta(description="Whether / is a page that shows the gateway at work; the page itself needs no key.")
    ] = True
    live: Annotated[
        Literal["admin", "loopback", "off"],
        Meta(
            description='Who sees the page\'s live figures: "admin" keys; "loopback": these, and whoever asks from this machine and'
            ' not through a proxy; "off": nobody.'
        ),
    ] = "admin"
