"""Chroma's OpenAI embedding function."""

from importlib.metadata import version
from typing import Any

from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

from compat_tests.matrix.clients.speaking import Asked, speak


def embed(asked: Asked) -> list[Any]:
    function = OpenAIEmbeddingFunction(
        api_base=asked.base_url, api_key=asked.key, model_name=asked.model, dimensions=asked.options.get("dimensions")
    )
    return list(function(asked.input))


if __name__ == "__main__":
    speak(version("chromadb"), embed)
