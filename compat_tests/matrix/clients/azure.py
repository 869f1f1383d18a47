"""openai-python's Azure client: the model stands in the path, the key in `api-key`."""

from typing import Any

import openai

from compat_tests.matrix.clients.speaking import Asked, speak

API_VERSION = "2024-10-21"


def embed(asked: Asked) -> list[Any]:
    with openai.AzureOpenAI(azure_endpoint=asked.origin, api_key=asked.key, api_version=API_VERSION, **asked.impatience) as client:
        answer = client.embeddings.create(model=asked.model, input=asked.input, **asked.options)
        return [row.embedding for row in answer.data]


if __name__ == "__main__":
    speak(openai.__version__, embed)
