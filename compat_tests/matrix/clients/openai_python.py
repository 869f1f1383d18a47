"""openai-python."""

from typing import Any

import openai

from compat_tests.matrix.clients.speaking import Asked, speak


def embed(asked: Asked) -> list[Any]:
    with openai.OpenAI(base_url=asked.base_url, api_key=asked.key, **asked.impatience) as client:
        answer = client.embeddings.create(model=asked.model, input=asked.input, **asked.options)
        return [row.embedding for row in answer.data]


if __name__ == "__main__":
    speak(openai.__version__, embed)
