"""Haystack: OpenAITextEmbedder for a text, OpenAIDocumentEmbedder for several."""

from importlib.metadata import version
from typing import Any

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

from compat_tests.matrix.clients.speaking import Asked, speak


def embed(asked: Asked) -> list[Any]:
    settings: dict[str, Any] = {
        "api_base_url": asked.base_url,
        "api_key": Secret.from_token(asked.key),
        "model": asked.model,
        "dimensions": asked.options.get("dimensions"),
        **asked.impatience,
    }
    if asked.is_one:
        return [OpenAITextEmbedder(**settings).run(asked.input)["embedding"]]
    embedder = OpenAIDocumentEmbedder(**settings, progress_bar=False, raise_on_failure=True)
    documents = embedder.run([Document(content=text) for text in asked.input])["documents"]
    return [document.embedding for document in documents]


if __name__ == "__main__":
    speak(version("haystack-ai"), embed)
