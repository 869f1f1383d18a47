"""langchain-openai, which sends token ids unless it is told not to."""

from importlib.metadata import version
from typing import Any

from langchain_openai import OpenAIEmbeddings

from compat_tests.matrix.clients.speaking import Asked, speak


def embed(asked: Asked) -> list[Any]:
    model_kwargs = {name: value for name, value in asked.options.items() if name != "dimensions"}
    options = {"dimensions": asked.options["dimensions"]} if "dimensions" in asked.options else {}
    if model_kwargs:
        options["model_kwargs"] = model_kwargs
    embeddings = OpenAIEmbeddings(base_url=asked.base_url, api_key=asked.key, model=asked.model, **options, **asked.impatience)
    return [embeddings.embed_query(asked.input)] if asked.is_one else embeddings.embed_documents(asked.input)


if __name__ == "__main__":
    speak(version("langchain-openai"), embed)
