"""Durable, atomic file writes: after a crash of the process or the machine a file is whole or absent."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Makes the file names in a folder durable. Does nothing on a system whose folders cannot be opened, like Windows."""
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
    """Writes to a new file, syncs it, then renames it. Raises OSError."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)  # noqa: PTH105 - Path.replace is the same, and does not say that it overwrites
    sync_folder(path.parent)
