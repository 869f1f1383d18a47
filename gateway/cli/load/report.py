"""The report of a run, as data and as a table."""

from collections.abc import Iterator

from msgspec import Struct

from gateway.cli.load.clients import Clients

BUSY_SHARE = 0.8  # of a core: above it the client is the bottleneck
MANY = 100


class BenchReport(Struct, kw_only=True):
    """Requests, inputs, tokens and latencies are those of correct replies within the window; None if there are none."""

    url: str
    model: str
    clients: int
    inputs_per_request: int
    encoding_format: str
    dimensions: int | None
    seconds: float
    interrupted: bool
    requests: int
    inputs: int
    tokens: int | None
    requests_per_second: float | None
    inputs_per_second: float | None
    tokens_per_second: float | None
    latency_seconds: dict[str, float | None]
    num_errors: int
    errors: dict[str, int]
    client_cpu_share: float


def report_of(clients: Clients, *, url: str, is_interrupted: bool) -> BenchReport:
    """The report of clients that have ended."""
    tally, window = clients.tally, clients.window
    latencies = {f"p{percent}": tally.latencies.percentile(percent) for percent in (50, 95, 99)} | {"max": tally.latencies.slowest}

    def rate(number: int) -> float | None:
        return round(number / window.seconds, 2) if window.seconds else None

    return BenchReport(
        url=url,
        model=clients.request.model,
        clients=window.num_clients,
        inputs_per_request=clients.num_inputs,
        encoding_format=clients.request.encoding_format,
        dimensions=clients.peer.dimensions,
        seconds=round(window.seconds, 3),
        interrupted=is_interrupted,
        requests=tally.num_requests,
        inputs=tally.num_inputs,
        tokens=tally.num_tokens or None,
        requests_per_second=rate(tally.num_requests),
        inputs_per_second=rate(tally.num_inputs),
        tokens_per_second=rate(tally.num_tokens) if tally.num_tokens else None,
        latency_seconds={name: None if value is None else round(value, 6) for name, value in latencies.items()},
        num_errors=tally.errors.total(),
        errors=dict(tally.errors.most_common()),
        client_cpu_share=round(clients.cpu_share, 3),
    )


def table(report: BenchReport) -> Iterator[str]:
    """The report's lines for a terminal."""
    yield f"{report.url}  {report.model}"
    yield (
        f"clients: {report.clients}  inputs a request: {report.inputs_per_request}  {report.encoding_format}"
        f"  {report.seconds:.1f} seconds{', stopped early' if report.interrupted else ''}"
    )
    yield ""
    yield from columns(
        ("", "all", "a second"),
        ("requests", short(report.requests), short(report.requests_per_second)),
        ("inputs", short(report.inputs), short(report.inputs_per_second)),
        ("tokens", short(report.tokens), short(report.tokens_per_second)),
    )
    yield ""
    yield from columns(
        ("", *report.latency_seconds),
        ("latency, ms", *(short(None if value is None else 1000 * value) for value in report.latency_seconds.values())),
    )
    yield ""
    yield from columns(("errors", short(report.num_errors)))
    yield from (f"  {kind}: {number:,}" for kind, number in report.errors.items())
    yield ""
    yield f"This client is a Python program and took {report.client_cpu_share:.0%} of a core. A server on the same machine"
    yield "misses that: for the last percent use wrk, as `make bench` does."
    if report.client_cpu_share > BUSY_SHARE:
        yield "The client was busy: the server may well be faster than this."


def columns(*rows: tuple[str, ...]) -> Iterator[str]:
    return (f"{first:<11}{''.join(f'{cell:>12}' for cell in cells)}" for first, *cells in rows)


def short(number: float | None) -> str:
    """Three significant figures, or the whole number."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= MANY or number == int(number) else f"{number:.3g}"
