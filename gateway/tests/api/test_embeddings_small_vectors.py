"""`output_dtype` over HTTP: every type in both formats, the ranges' id, and what is refused by which name."""

import base64

import numpy as np
import pytest

from gateway.config import CacheSettings, ModelRow
from gateway.embedding.quantization import quantize, ranges_of
from gateway.errors import OperatorError
from gateway.testing.fakes import FakeEmbedder, hashed
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.test_embeddings import posted

RANGES = ranges_of([-0.5] * 8, [0.5] * 8)
NUMPY = {
    "float": "<f4",
    "float16": "<f2",
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}


@pytest.fixture
def embedder():
    embedder = FakeEmbedder()
    embedder.about = {"ranges": RANGES}
    return embedder


async def started(make, **row):
    gateway = make(models=(ModelRow(name="m", backend="fake", **row),))
    await gateway.start()
    await gateway.load()
    return gateway


def vectors(reply, dtype):
    rows = [each["embedding"] for each in reply.json()["data"]]
    return np.stack([np.frombuffer(base64.b64decode(row), NUMPY[dtype]) if isinstance(row, str) else np.array(row) for row in rows])


@pytest.mark.parametrize("dtype", NUMPY)
async def test_numbers_and_bytes_are_those_of_the_float32_vectors(client, dtype):
    texts = ["hello world", "one"]
    expected = quantize(np.stack([hashed(text, 8) for text in texts]), dtype, RANGES)
    packed = await posted(client, input=texts, output_dtype=dtype, encoding_format="base64")
    numbers = await posted(client, input=texts, output_dtype=dtype)
    assert vectors(packed, dtype).astype(NUMPY[dtype]).tobytes() == expected.tobytes()
    assert np.array_equal(vectors(numbers, dtype).astype(NUMPY[dtype]), expected)
    if dtype not in {"float", "float16"}:
        assert all(type(number) is int for row in numbers.json()["data"] for number in row["embedding"])


@pytest.mark.parametrize("dtype", NUMPY)
async def test_only_types_with_ranges_carry_their_id(client, dtype):
    found = (await posted(client, output_dtype=dtype)).headers.get("x-gateway-quantization")
    assert found == (RANGES.id if dtype in {"int8", "uint8"} else None)


async def test_a_shorter_vector_is_cut_first_and_made_small_then(client):
    cut = hashed("hello world", 8)[:3]
    reply = await posted(client, output_dtype="ubinary", dimensions=3)
    assert vectors(reply, "ubinary").tolist() == [[np.packbits(cut > 0)[0]]]
    half = await posted(client, output_dtype="float16", dimensions=3)
    np.testing.assert_allclose(vectors(half, "float16")[0], cut / np.linalg.norm(cut), atol=1e-3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"output_dtype": "int8", "dimensions": 3}, "output_dtype"),
        ({"output_dtype": "uint8", "normalize": False}, "output_dtype"),
        ({"embedding_type": "int8", "dimensions": 3}, "embedding_type"),
        ({"embedding_types": ["uint8"], "output_dimension": 3}, "embedding_types"),
        ({"output_dtype": "int4"}, "output_dtype"),
        ({"output_dtype": "float32"}, "output_dtype"),
        ({"output_dtype": ["int8"]}, "output_dtype"),
        ({"output_dtype": ""}, "output_dtype"),
    ],
)
async def test_what_cannot_be_given_is_refused_by_the_clients_own_name_before_any_work(client, embedder, body, param):
    error = (reply := await posted(client, **body)).json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert f"'{param}'" in error["message"]
    assert embedder.num_embedded == 0


async def test_whole_dimensions_asked_for_by_number_have_the_models_own_ranges(client):
    assert (await posted(client, output_dtype="int8", dimensions=8)).headers["x-gateway-quantization"] == RANGES.id


async def test_the_rows_ranges_are_for_shorter_vectors_and_outrank_the_models_own(make):
    gateway = await started(make, quantization_ranges={"3": [-1, 1], "8": [-0.25, 0.25]})
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        short, whole = [await posted(client, output_dtype="int8", **more) for more in ({"dimensions": 3}, {})]
        listed = (await client.get("/v1/models/m")).json()
    assert short.headers["x-gateway-quantization"] == ranges_of([-1] * 3, [1] * 3).id
    assert whole.headers["x-gateway-quantization"] == ranges_of([-0.25] * 8, [0.25] * 8).id == listed["quantization"]
    await gateway.close()


@pytest.mark.parametrize("has_ranges", [False, True])
async def test_the_list_says_what_a_model_gives(client, embedder, has_ranges):
    embedder.about = {"ranges": RANGES if has_ranges else None}
    listed = (await client.get("/v1/models/m")).json()
    ranged = ["int8", "uint8"] if has_ranges else []
    assert listed["output_dtypes"] == ["float", "float16", *ranged, "binary", "ubinary"]
    assert listed["quantization"] == (RANGES.id if has_ranges else None)
    assert (await posted(client, output_dtype="int8")).status_code == (200 if has_ranges else 400)


async def test_one_cache_entry_serves_every_type(make, embedder):
    gateway = make(cache=CacheSettings(max_bytes=100_000))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        hits = [(await posted(client, output_dtype=dtype)).headers["x-gateway-cache"] for dtype in NUMPY]
    assert hits == ["hits=0", *["hits=1"] * 5]
    assert embedder.num_embedded == 1
    await gateway.close()


async def test_a_row_may_pin_its_ranges(make):
    gateway = await started(make, quantization=RANGES.id)
    assert gateway.catalog.find("m").state == "ready"
    await gateway.close()


@pytest.mark.parametrize(
    ("row", "category"),
    [
        ({"quantization": "0123456789abcdef"}, "other_quantization"),
        ({"quantization": RANGES.id, "quantization_ranges": [-1, 1]}, "other_quantization"),
        ({"quantization": RANGES.id, "max_dimensions": 4}, "other_quantization"),
        ({"quantization_ranges": {"16": [-1, 1]}}, "dimensions"),
    ],
)
async def test_a_model_whose_ranges_are_not_the_rows_is_not_served(make, row, category):
    gateway = make(models=(ModelRow(name="m", backend="fake", **row),))
    await gateway.start()
    with pytest.raises(OperatorError) as caught:
        await gateway.load()
    assert (gateway.catalog.find("m").state, caught.value.category) == ("failed", category)
    await gateway.close()


async def test_a_reload_gives_an_unchanged_embedder_its_rows_new_ranges(make, embedder):
    gateway = await started(make)
    row = ModelRow(name="m", backend="fake", quantization_ranges=[-2, 2])
    catalog = gateway.builder.build_catalog(type(gateway.config)(models=(row,)), gateway.generation)
    model = catalog.find("m")
    assert model.built is embedder
    assert model.ranges_of(8) == ranges_of([-2] * 8, [2] * 8)
    await gateway.close()


OPENAI_SDKS = [
    {"user-agent": "OpenAI/Python 2.8.1"},
    {"user-agent": "AsyncAzureOpenAI/Python 1.0.0"},
    {"user-agent": "OpenAI/JS 6.1.0"},
    {"x-stainless-lang": "go", "user-agent": "something"},
]


@pytest.mark.parametrize("headers", OPENAI_SDKS)
@pytest.mark.parametrize("body", [{"output_dtype": "int8"}, {"embedding_type": "binary"}, {"embed_dtype": "float16"}])
async def test_base64_that_openais_sdks_would_read_as_float32_is_refused_to_them(client, embedder, headers, body):
    sent = {"model": "m", "input": "a", **body}
    reply = await client.post("/v1/embeddings", json={**sent, "encoding_format": "base64"}, headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "encoding_format")
    assert "encoding_format 'float'" in reply.json()["error"]["message"]
    assert embedder.num_embedded == 0
    assert (await client.post("/v1/embeddings", json=sent, headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", OPENAI_SDKS)
async def test_base64_of_float32_is_theirs(client, headers):
    sent = {"model": "m", "input": "a", "encoding_format": "base64", "output_dtype": "float"}
    assert (await client.post("/v1/embeddings", json=sent, headers=headers)).status_code == 200
