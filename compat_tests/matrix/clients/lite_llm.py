"""LiteLLM, in an environment of its own."""

from importlib.metadata import version
from typing import Any

import litellm

from compat_tests.matrix.clients.speaking import Asked, speak


def embed(asked: Asked) -> list[Any]:
    answer = litellm.embedding(
        model=f"openai/{asked.model}",
        input=asked.input,
        api_base=asked.base_url,
        api_key=asked.key,
        **asked.options,
        **asked.impatience,
    )
    return [row["embedding"] for row in answer.data]


if __name__ == "__main__":
    speak(version("litellm"), embed)
