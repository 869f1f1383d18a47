"""Finds the programs of other projects that the helpers start, and free ports for them."""

import shutil
import socket


class NotInstalled(Exception):
    """A helper needs a program that this machine lacks. Our tests then skip, or fail if CI=true."""


def find_program(*names: str, hint: str) -> str:
    """The first of `names` that is on the path.

    Raises NotInstalled with `hint`.
    """
    found = next((name for name in names if shutil.which(name)), None)
    if found is None:
        raise NotInstalled(hint)
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.create_server((host, 0)) as listening:
        return int(listening.getsockname()[1])
