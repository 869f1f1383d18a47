"""Names of the dependencies, as a file that stands over /etc/hosts for the gateways alone: what DNS is elsewhere."""

from pathlib import Path

DOMAIN = "chaos.test"
# A namespace of mounts of its own, in which the file lies over the machine's; nobody else sees it.
OVERLAY = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


class HostsFile:
    """Changed in place: what lies over another file must stay the same one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.addresses: dict[str, str] = {}

    def point(self, name: str, address: str) -> None:
        self.addresses[name] = address
        lines = ["127.0.0.1 localhost", *(f"{each} {known}.{DOMAIN}" for known, each in self.addresses.items())]
        with self.path.open("r+" if self.path.exists() else "w", encoding="ascii") as file:
            file.write("\n".join([*lines, ""]))
            file.truncate()

    def command(self, *words: str) -> list[str]:
        """The same command, for which these names are true."""
        return [*OVERLAY, str(self.path), *words]
