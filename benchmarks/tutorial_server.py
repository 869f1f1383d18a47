"""FastAPI and `encode`, in the two ways tutorials write it. It runs in the peers' environment, so it imports nothing of ours."""

import os

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app, async_app = FastAPI(), FastAPI()
model = SentenceTransformer(os.environ["MODEL_FOLDER"], device="cpu")


class EmbeddingsRequest(BaseModel):
    model: str
    input: str | list[str]


@app.get("/health")
@async_app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/embeddings")
def embed_in_threads(request: EmbeddingsRequest) -> dict[str, object]:
    """FastAPI runs a `def` in a pool, so many encode at once."""
    return embeddings(request)


@async_app.post("/v1/embeddings")
async def embed_on_the_loop(request: EmbeddingsRequest) -> dict[str, object]:
    """One after another, and nothing else is answered meanwhile."""
    return embeddings(request)


def embeddings(request: EmbeddingsRequest) -> dict[str, object]:
    texts = [request.input] if isinstance(request.input, str) else request.input
    vectors = model.encode(texts, show_progress_bar=False).tolist()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": request.model}
