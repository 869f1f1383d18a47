"""Retrieval in three steps, from one gateway: an index of bits is searched, its best are rescored, and the best of those reranked.

    pip install cohere faiss-cpu numpy openai
    GATEWAY=http://127.0.0.1:8000 API_KEY=sk-gw-… RERANKER=NAME python binary_rag.py texts.txt "a question"

texts.txt has one text a line; RERANKER is a model whose kind in /v1/models is reranker. For each text the index keeps one bit a
dimension, a 32nd of float32, in memory; the int8 vectors, a quarter, may lie on disk, as only those of the candidates are read. A
model without ranges for int8 gives float16 for them.
"""

import os
import sys
from pathlib import Path

import cohere
import faiss
import numpy as np
from openai import OpenAI

MODEL = os.environ.get("MODEL", "all-MiniLM-L6-v2")
MAX_INPUTS = 2048  # of one request
CANDIDATES, RESCORED, SHOWN = 100, 20, 3
NUMBERS = {"float": np.float32, "float16": np.float16, "int8": np.int8, "ubinary": np.uint8}


def embedded(client: OpenAI, texts: list[str], output_dtype: str, *, input_type: str) -> np.ndarray:
    """One row a text. Numbers are asked for, as OpenAI's client would read base64 of another type as float32."""
    rows = []
    for start in range(0, len(texts), MAX_INPUTS):
        reply = client.embeddings.create(
            model=MODEL,
            input=texts[start : start + MAX_INPUTS],
            encoding_format="float",
            extra_body={"output_dtype": output_dtype, "input_type": input_type},
        )
        rows += [row.embedding for row in reply.data]
    return np.array(rows, dtype=NUMBERS[output_dtype])


def indexed(bits: np.ndarray) -> faiss.IndexBinaryFlat:
    """Exact search by Hamming distance; from some million texts on, faiss.IndexBinaryHNSW is faster and nearly as right."""
    index = faiss.IndexBinaryFlat(8 * bits.shape[1])
    index.add(bits)
    return index


def main() -> None:
    texts = [line.strip() for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if line.strip()]
    question, gateway, key = sys.argv[2], os.environ["GATEWAY"], os.environ["API_KEY"]
    client = OpenAI(base_url=f"{gateway}/v1", api_key=key)
    index = indexed(embedded(client, texts, "ubinary", input_type="document"))
    given = client.models.retrieve(MODEL).model_dump()["output_dtypes"]
    codes = embedded(client, texts, "int8" if "int8" in given else "float16", input_type="document")
    query = embedded(client, [question], "float", input_type="query")

    _, [candidates] = index.search(np.packbits(query > 0, axis=1), k=min(CANDIDATES, len(texts)))
    scores = codes[candidates].astype(np.float32) @ query[0]  # the bits of a query are few: its floats order the candidates anew
    best = candidates[np.argsort(-scores)][:RESCORED]

    documents = [texts[number] for number in best]
    reply = cohere.ClientV2(api_key=key, base_url=gateway).rerank(
        model=os.environ["RERANKER"], query=question, documents=documents, top_n=SHOWN
    )
    for result in reply.results:
        print(f"{result.relevance_score:.3f}  {documents[result.index]}")


if __name__ == "__main__":
    main()
