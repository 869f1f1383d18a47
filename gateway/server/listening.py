"""Listening sockets: one per address, all opened or none."""

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.config import ListenAddress
from gateway.config.listen_address import ANY_IPV6
from gateway.errors import OperatorError
from gateway.tcp import notice_silent_peer

BACKLOG = 2048
SILENT_CLIENT_SECONDS = 15.0  # then TCP keep-alive probes its host; a connection whose host is gone ends after twice as long
PORT_TRIES = 20  # for port 0, to find a port that is free on every address


class Listening:
    """Open sockets. `urls` are in the order of the addresses."""

    def __init__(self, addresses: Sequence[ListenAddress], port: int, *, mode: str = "660") -> None:
        """`mode` is the file mode of Unix sockets, in octal. Raises OperatorError with the reason if an address cannot be used."""
        self.sockets: list[socket.socket] = []
        self.urls: list[str] = []
        self.files: list[tuple[Path, tuple[int, int]]] = []
        self.mode = int(mode, 8)
        self.port = port
        try:
            self.open(addresses)
        except BaseException:
            self.close()
            raise

    def open(self, addresses: Sequence[ListenAddress]) -> None:
        networks = [address for address in addresses if not address.path]
        self.sockets = _sockets_of(networks, self.port)
        if self.sockets:
            self.port = self.sockets[0].getsockname()[1]
        bound = iter([listening.getsockname() for listening in self.sockets])
        for address in addresses:
            if address.path:
                self.sockets.append(self.unix_socket(Path(address.path)))
                self.urls.append(address.url(self.port))
            else:
                host, port = next(bound)[:2]
                self.urls.append(ListenAddress(host).url(port))

    def unix_socket(self, path: Path) -> socket.socket:
        """Opens a Unix socket, and replaces the file of a process that is gone. Raises OperatorError if another process listens."""
        if sys.platform == "win32":
            raise OperatorError(f"cannot listen on unix:{path}: not on Windows")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            remove_stale(path)
            os.fchmod(listening.fileno(), self.mode)  # so that on Linux no other user can connect between bind and chmod
            listening.bind(str(path))
            path.chmod(self.mode)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise OperatorError(f"cannot listen on unix:{path}: {error.strerror}") from None
        self.files.append((path, identity_of(path)))
        return listening

    def close(self) -> None:
        """Closes the sockets. Removes the files of Unix sockets, unless another process has replaced them. Idempotent."""
        for listening in self.sockets:
            listening.close()
        for path, identity in self.files:
            with contextlib.suppress(OSError):
                if identity_of(path) == identity:
                    path.unlink()
        self.files = []


def _sockets_of(addresses: list[ListenAddress], port: int) -> list[socket.socket]:
    """Opens a socket per address, all on one port. Raises OperatorError."""
    for is_last in (number == PORT_TRIES - 1 for number in range(PORT_TRIES)):
        opened: list[socket.socket] = []
        try:
            for address in addresses:
                chosen = port or (opened[0].getsockname()[1] if opened else 0)
                opened.append(_tcp_socket(address, chosen, is_dual=is_dual(address, addresses)))
        except OSError as error:
            for listening in opened:
                listening.close()
            if port == 0 and opened and error.errno == errno.EADDRINUSE and not is_last:
                continue  # the port that was free on the first address is not on this one
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "it is not a valid address"
            raise OperatorError(f"cannot listen on {address.url(port).removeprefix('http://')}: {reason}") from None
        return opened
    raise AssertionError("unreachable")


def is_dual(address: ListenAddress, addresses: Iterable[ListenAddress]) -> bool:
    """Whether the address serves IPv4 too: `::` does, unless an IPv4 address is listed beside it."""
    has_ipv4 = any(not other.is_ipv6 for other in addresses)
    return address.host == ANY_IPV6 and not has_ipv4 and socket.has_dualstack_ipv6()


def _tcp_socket(address: ListenAddress, port: int, *, is_dual: bool) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    try:
        listening = socket.create_server(
            (address.host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual,
        )  # fmt: skip
    except UnicodeError:
        raise OSError from None
    notice_silent_peer(listening, SILENT_CLIENT_SECONDS)
    return listening


def remove_stale(path: Path) -> None:
    """Removes a socket file that no process listens on. Raises OSError if the path is in use, or is not a socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is a file of that name, which is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def identity_of(path: Path) -> tuple[int, int]:
    about = path.lstat()
    return about.st_dev, about.st_ino
