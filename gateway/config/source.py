"""Where a running gateway's configuration comes from, so that it can be read again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.loading import DEFAULT_FILE, first_set, load
from gateway.config.settings import Config

Stamp = tuple[int, ...]


class ConfigSource:
    """The file, and the flags that go before it. A file that was there once must stay: without it nothing is read."""

    def __init__(self, path: str | Path | None = None, *, flags: Mapping[tuple[str, str], Any] | None = None) -> None:
        given = path or first_set(["GATEWAY_CONFIG"])
        self.path = Path(given) if given else None
        self.flags = flags
        self.seen: Stamp | None = None  # the file as it was when it was last read

    def read(self) -> Config:
        """Raises ConfigurationError, also when the file is gone."""
        if self.path is None and DEFAULT_FILE.exists():
            self.path = DEFAULT_FILE
        self.seen = self.stamp()
        return load(self.path, flags=self.flags)

    def stamp(self) -> Stamp | None:
        """What changes whenever the file does, one renamed into its place or another folder behind a link included.

        None while there is no file. Links are followed: Kubernetes mounts a ConfigMap behind two, and swaps the first.
        """
        try:
            about = (self.path or DEFAULT_FILE).stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
