"""cl100k_base's ranks as tiktoken caches them, from the data file the gateway carries: tests have no network."""

import base64
import hashlib
import lzma
from pathlib import Path

from compat_tests.process import ROOT

PACKED = ROOT / "gateway/wire/cl100k_base.xz"
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"  # of the file OpenAI publishes
CACHE_NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # tiktoken's: the SHA-1 of that file's address


def write_tiktoken_cache(folder: Path) -> None:
    """What becomes TIKTOKEN_CACHE_DIR: one line a rank, `base64(token) rank`."""
    published = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens()))
    assert hashlib.sha256(published).hexdigest() == SHA256
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CACHE_NAME).write_bytes(published)


def tokens() -> list[bytes]:
    """In rank order; in the file each stands behind one byte of its length."""
    packed = lzma.decompress(PACKED.read_bytes())
    found: list[bytes] = []
    position = 0
    while position < len(packed):
        end = position + 1 + packed[position]
        found.append(packed[position + 1 : end])
        position = end
    return found
