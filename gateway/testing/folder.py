"""Where a model's files are, by its source alone."""

from pathlib import Path

from gateway.engine.settings import LocalSettings
from gateway.engine.weights import find_folder


def folder_of(source: str, *, download: bool) -> Path:
    """As `find_folder`, for a source without further settings."""
    return find_folder(LocalSettings(source=source, download=download))
