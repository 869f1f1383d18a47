"""openai-python and LangChain: small vectors as numbers; base64 that they would read as float32 is refused, not noise."""

import base64

import httpx
import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import BadRequestError, OpenAI

from compat_tests.process import Gateway
from compat_tests.texts import DIMENSIONS, MODEL

TEXT = "Honey is harvested in July."
LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "binary": (-128, 127), "ubinary": (0, 255)}


@pytest.mark.parametrize("dtype", LIMITS)
def test_small_numbers_arrive_where_numbers_are_asked_for(client: OpenAI, dtype: str) -> None:
    reply = client.embeddings.create(model=MODEL, input=TEXT, encoding_format="float", extra_body={"output_dtype": dtype})
    numbers = reply.data[0].embedding
    lowest, highest = LIMITS[dtype]
    assert len(numbers) == (DIMENSIONS // 8 if dtype.endswith("binary") else DIMENSIONS)
    assert all(number == int(number) and lowest <= number <= highest for number in numbers)


def test_bits_are_those_of_the_float32_vector(client: OpenAI) -> None:
    floats = client.embeddings.create(model=MODEL, input=TEXT, encoding_format="float").data[0].embedding
    bits = client.embeddings.create(model=MODEL, input=TEXT, encoding_format="float", extra_body={"output_dtype": "ubinary"})
    assert bits.data[0].embedding == np.packbits(np.array(floats) > 0).tolist()


@pytest.mark.parametrize("extra", [{"output_dtype": "int8"}, {"embedding_type": "binary"}, {"embed_dtype": "float16"}])
def test_the_sdks_own_default_is_refused_and_no_noise_is_returned(client: OpenAI, extra: dict[str, str]) -> None:
    with pytest.raises(BadRequestError, match="Send encoding_format 'float'") as caught:
        client.embeddings.create(model=MODEL, input=TEXT, extra_body=extra)
    assert caught.value.param == "encoding_format"


def test_langchain_gets_no_noise_either(gateway: Gateway, key: str) -> None:
    kwargs = {"extra_body": {"output_dtype": "binary"}}
    server = {"base_url": gateway.base_url, "api_key": key, "model": MODEL}
    with pytest.raises(BadRequestError, match="Send encoding_format 'float'"):
        OpenAIEmbeddings(**server, model_kwargs=kwargs).embed_query(TEXT)
    bits = OpenAIEmbeddings(**server, model_kwargs={**kwargs, "encoding_format": "float"}).embed_query(TEXT)
    assert len(bits) == DIMENSIONS // 8


def test_other_clients_get_the_bytes_and_queries_agree_with_documents_by_the_id(gateway: Gateway, key: str) -> None:
    asked = {"model": MODEL, "input": TEXT, "output_dtype": "int8", "encoding_format": "base64"}
    headers = {"authorization": f"Bearer {key}"}
    replies = [httpx.post(f"{gateway.base_url}/embeddings", json=asked, headers=headers) for _ in range(2)]
    listed = httpx.get(f"{gateway.base_url}/models/{MODEL}", headers=headers).json()
    assert len(base64.b64decode(replies[0].json()["data"][0]["embedding"], validate=True)) == DIMENSIONS
    assert {reply.headers["x-gateway-quantization"] for reply in replies} == {listed["quantization"]}
    assert "int8" in listed["output_dtypes"]
