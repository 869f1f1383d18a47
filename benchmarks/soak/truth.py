"""What is true of the texts: `encode`'s vectors in float32. A program of its own, so that torch is
not in the soak's own."""

import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from benchmarks.corpus import MODEL
from gateway.testing.folder import folder_of

if __name__ == "__main__":
    texts, vectors = map(Path, sys.argv[1:3])
    model = SentenceTransformer(str(folder_of(MODEL, download=False)), device="cpu", local_files_only=True)
    np.save(
        vectors, model.encode(json.loads(texts.read_text(encoding="utf-8")), normalize_embeddings=True, show_progress_bar=False)
    )
