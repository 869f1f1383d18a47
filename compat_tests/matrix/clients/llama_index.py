"""LlamaIndex: OpenAIEmbedding with a model name of one's own."""

from importlib.metadata import version
from typing import Any

from llama_index.embeddings.openai import OpenAIEmbedding

from compat_tests.matrix.clients.speaking import Asked, speak


def embed(asked: Asked) -> list[Any]:
    # base64 is what openai-python asks for below it; asked for by name, it would come as text, which LlamaIndex refuses to carry
    extra = {"encoding_format": "float"} if asked.options.get("encoding_format") == "float" else {}
    embedding = OpenAIEmbedding(
        model_name=asked.model,
        api_base=asked.base_url,
        api_key=asked.key,
        dimensions=asked.options.get("dimensions"),
        additional_kwargs=extra,
        **asked.impatience,
    )
    if asked.is_one:
        return [embedding.get_query_embedding(asked.input)]
    return embedding.get_text_embedding_batch(asked.input)


if __name__ == "__main__":
    speak(version("llama-index-embeddings-openai"), embed)
