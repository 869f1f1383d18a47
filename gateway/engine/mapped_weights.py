"""The weights of a compiled model as a mapped file, whose pages are given back once they are packed.

OpenVINO packs most weights into the layout of its kernels, and never reads the file's copy of those again. It would stay resident
all the same: 43 of MiniLM's 90 MB in float32. What is read from the file itself, as tables of embeddings are, comes back by itself,
page by page.
"""

import mmap
from pathlib import Path

import numpy as np

from gateway.engine.openvino_import import openvino


class MappedWeights:
    """A weights file in memory. It must live as long as any network compiled from its `tensor`: those read from it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # OpenVINO takes no array that is read-only
        self.tensor = openvino.Tensor(np.frombuffer(self.mapped, dtype=np.uint8), shared_memory=True)

    def release(self) -> None:
        """Gives all pages back to the system. Any thread may call it, also while networks run: what they need is read again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # on Linux; elsewhere the pages stay
            self.mapped.madvise(mmap.MADV_DONTNEED)
