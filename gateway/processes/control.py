"""Messages between the supervisor and a child. All are small but the samples of metrics."""

import msgspec
from msgspec import Struct

from gateway.config import Config
from gateway.metrics.snapshot import MetricFamily


class Control(Struct, frozen=True, tag=True):
    """The base of these messages."""


class LinkHeader(Control, frozen=True):
    """To both ends of a link: the socket beside this message leads to front `number`; for that front, to the engine."""

    number: int


class Leave(Control, frozen=True):
    """To the engine: the fronts begin to drain. `/readyz` says no from now on; after the delay no new work is accepted."""

    skip_delay: bool = False


class Stop(Control, frozen=True):
    """End. A front drains first: `skip_delay` skips the load-balancer delay. `force` ends it at once, as a second signal does."""

    skip_delay: bool = False
    force: bool = False


class Reload(Control, frozen=True):
    """To the engine: read the configuration again (SIGHUP)."""


class MakeRoom(Control, frozen=True):
    """From front `asking`, where no connection waits, and to others: close the one that has waited longest, if given of `address`.

    A front where none waits adds itself to those that have `tried`, and sends it back: the supervisor asks the next.
    """

    asking: int
    address: str | None
    tried: list[int]


class RoomMade(Control, frozen=True):
    """The answer to front `asking`: a connection was closed, or no front can close one."""

    asking: int


class Ready(Control, frozen=True):
    """From a child: it serves. A child that ends before its first `Ready` ends the gateway, with its exit code."""


class Accepted(Control, frozen=True):
    """From the engine: the configuration in effect, after each reload. Children that are started later begin with it."""

    config: Config


class SamplesWanted(Control, frozen=True):
    """To a child: send your samples."""


class Samples(Control, frozen=True):
    """From a child: its metrics now. Sent when wanted, and every few seconds, so that little is lost when it is killed."""

    families: list[MetricFamily]


class SumWanted(Control, frozen=True):
    """From the engine: send the sums over all processes."""

    number: int


class Sum(Control, frozen=True):
    """To the engine: each family once, summed over all processes and those that have ended."""

    number: int
    families: list[MetricFamily]


ToChild = LinkHeader | Leave | Stop | Reload | MakeRoom | RoomMade | SamplesWanted | Sum
FromChild = Ready | Accepted | Samples | SumWanted | MakeRoom | RoomMade

encode = msgspec.msgpack.Encoder().encode
to_child = msgspec.msgpack.Decoder(ToChild)
from_child = msgspec.msgpack.Decoder(FromChild)
