"""The source of a running gateway's configuration, from which it can be read again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.loading import DEFAULT_FILE, first_set, load
from gateway.config.settings import Config

Stamp = tuple[int, ...]


class ConfigSource:
    """The file, and the flags that override it. Once a file was read, its absence is an error: defaults never replace it."""

    def __init__(self, path: str | Path | None = None, *, flags: Mapping[tuple[str, str], Any] | None = None) -> None:
        given = path or first_set(["GATEWAY_CONFIG"])
        self.path = Path(given) if given else None
        self.flags = flags
        self.seen: Stamp | None = None  # the file as it was when it was last read

    def read(self) -> Config:
        """Reads the configuration. Raises ConfigurationError, also if a file that was there before is gone."""
        if self.path is None and DEFAULT_FILE.exists():
            self.path = DEFAULT_FILE
        self.seen = self.stamp()
        return load(self.path, flags=self.flags)

    def stamp(self) -> Stamp | None:
        """A stamp that changes with the file, also if another file is renamed over it or a link leads to another folder.

        It follows links: Kubernetes mounts a ConfigMap behind two, and swaps the first. Returns None if there is no file.
        """
        try:
            about = (self.path or DEFAULT_FILE).stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
