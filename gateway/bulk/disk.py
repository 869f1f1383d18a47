"""Files that are whole or not there, whatever ends the process or the machine."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last. Where folders cannot be opened, as on Windows, the system sees to it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Written, synced, then named. Raises OSError."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)  # noqa: PTH105 - Path.replace is the same, and does not say that it overwrites
    sync_folder(path.parent)
