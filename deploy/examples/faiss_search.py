"""Search with FAISS: the nearest of some texts, by vectors from the gateway. `pip install faiss-cpu numpy openai`, then

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-gw-… python faiss_search.py texts.txt "a question"

texts.txt has one text a line.
"""

import sys
from pathlib import Path

import faiss
import numpy as np
from openai import OpenAI

MODEL = "all-MiniLM-L6-v2"
MAX_INPUTS = 2048  # of one request


def embedded(client: OpenAI, texts: list[str]) -> np.ndarray:
    """One row a text, float32, each of length 1: then the inner product is the cosine."""
    rows = []
    for start in range(0, len(texts), MAX_INPUTS):
        reply = client.embeddings.create(model=MODEL, input=texts[start : start + MAX_INPUTS])
        rows += [row.embedding for row in reply.data]
    return np.array(rows, dtype=np.float32)


def indexed(rows: np.ndarray) -> faiss.Index:
    """Exact search; from some hundred thousand texts on, faiss.IndexHNSWFlat is faster and nearly as right."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def main() -> None:
    texts = [line.strip() for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if line.strip()]
    client = OpenAI()
    index = indexed(embedded(client, texts))
    cosines, numbers = index.search(embedded(client, [sys.argv[2]]), k=min(3, len(texts)))
    for cosine, number in zip(cosines[0], numbers[0], strict=True):
        print(f"{cosine:.3f}  {texts[number]}")


if __name__ == "__main__":
    main()
