"""What is found out about a server before it is used: no embedder, other bytes, a cut in silence, unit vectors only."""

import contextlib

import numpy as np
import pytest

from gateway.errors import InputTooLong, InvalidValue, OperatorError, Unembeddable
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import Said, Weights, serving_openai, vectors_said
from gateway.tests.upstream.conftest import embedded, over
from gateway.upstream.truncation import most_tokens

pytestmark = pytest.mark.timeout(60)


def giving(row_of):
    """A server that gives each text what `row_of` makes of it."""

    def answer(request):
        if request.method == "GET":
            return Said(404)
        return vectors_said(request, np.array([row_of(text) for text in request.body["input"]], dtype=np.float32), encoding="float")

    return answer


RERANKER = np.array([4.746425474877469e-06, *[0.0] * 95])  # llama.cpp with a cross-encoder at /v1/embeddings, its 96 numbers


@pytest.mark.parametrize(
    ("row_of", "reason"),
    [
        (lambda _: RERANKER, "one and the same vector"),
        (lambda text: RERANKER * (1 if len(text) > 30 else -1), "one and the same vector"),
        (lambda text: RERANKER * len(text), "one and the same vector"),
        (lambda _: np.zeros(96), "zeros"),
        (lambda _: np.ones(8), "one and the same vector"),
        (lambda text: [float(len(text))], "one and the same vector"),  # a score
        (lambda _: [float("nan")] * 8, "not numbers"),
    ],
)
async def test_what_is_no_embedder_is_refused_at_load_by_what_was_seen(row_of, reason):
    with pytest.raises(OperatorError, match=reason):
        async with over("openai", giving(row_of)):
            pass


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
@pytest.mark.parametrize("dimensions", [31, 32])
async def test_base64_that_is_not_float32_is_found_out_and_numbers_are_asked_for(dtype, dimensions):
    weights = Weights("a", dimensions=dimensions)
    async with over("openai", serving_openai(weights, dtype=dtype)) as (server, remote):
        vectors = await embedded(remote, "a text")
        assert "encoding_format" not in server.requests[0].body
    np.testing.assert_allclose(vectors.rows[0], weights.vector("a text"), atol=1e-6)
    async with over("openai", serving_openai(weights)) as (server, remote):
        await embedded(remote, "a text")
        assert server.requests[0].body["encoding_format"] == "base64"


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
async def test_a_server_that_gives_nothing_but_such_base64_is_refused(dtype):
    with pytest.raises(OperatorError, match=r"base64 that is not float32|not numbers|is not a whole number"):
        async with over("openai", serving_openai(Weights("a"), dtype=dtype, encoding="base64")):
            pass


async def test_a_vector_of_zeros_is_unembeddable_and_its_input_named():
    def answer(request):
        said = standin.openai(request, encoding="float")
        if request.method == "POST" and "zero" in request.body["input"]:
            said.body["data"][request.body["input"].index("zero")]["embedding"] = [0.0] * 8
        return said

    async with over("openai", answer) as (_, remote):
        with pytest.raises(Unembeddable, match=r"cannot embed 'input\[1\]': it gave a vector of zeros"):
            await embedded(remote, "a", "zero")


async def test_vectors_too_long_or_too_short_for_the_square_of_a_float32_are_made_length_1():
    for scale in (1e25, 1e-9):
        async with over("openai", serving_openai(Weights("a", scale=scale))) as (_, remote):
            vectors = await embedded(remote, "a text")
        np.testing.assert_allclose(vectors.rows[0], Weights("a").vector("a text"), atol=1e-6)


def words(count, kind="word"):
    return " ".join(f"{kind}{number}" for number in range(count))


async def test_a_description_is_made_anew_once_something_in_it_changed():
    async with over("openai", serving_openai(Weights("a", limit=150))) as (_, remote):
        first = remote.describe()
        assert remote.describe() is first
        with pytest.raises(InputTooLong):
            await embedded(remote, words(500))
        assert remote.describe().max_tokens < first.max_tokens
        assert remote.describe() is remote.describe()


@pytest.mark.parametrize("limit", [20, 150, 256, 1000])
@pytest.mark.parametrize("keeps", ["start", "end", "both"])
async def test_a_cut_in_silence_is_found_by_the_request_that_first_asks_for_such_a_length(limit, keeps):
    """TEI started with auto-truncation, at its OpenAI door: 200, and the vector of the first 256 tokens."""
    weights = Weights("a", limit=limit, keeps=keeps)
    whole = Weights("a")
    async with over("openai", serving_openai(weights)) as (_, remote):
        for number in (limit + max(1, limit // 20), 3 * limit, 10 * limit):
            with pytest.raises(InputTooLong, match=r"Invalid 'input\[1\]': maximum input length is \d+ tokens"):
                await embedded(remote, "short", words(number))
        fits = words(limit - limit // 10)
        np.testing.assert_allclose((await embedded(remote, fits)).rows[0], whole.vector(fits), atol=1e-5)
        assert 0.8 * limit <= remote.describe().max_tokens <= limit


async def test_single_letters_are_a_token_each_and_count_as_that():
    async with over("openai", serving_openai(Weights("a", limit=256))) as (_, remote):
        with pytest.raises(InputTooLong):
            await embedded(remote, " ".join("abcdefghij"[number % 10] for number in range(300)))


async def test_where_the_beginning_is_kept_end_is_allowed_and_else_it_is_not():
    text = words(600)
    async with over("openai", serving_openai(Weights("a", limit=256))) as (_, remote):
        vectors = await embedded(remote, text, long_input="end")
        np.testing.assert_allclose(vectors.rows[0], Weights("a", limit=256).vector(text), atol=1e-5)
    for weights in (Weights("a", limit=256, keeps="end"), Weights("a")):
        async with over("openai", serving_openai(weights)) as (_, remote):
            with pytest.raises(InvalidValue, match="knows error but not end"):
                await embedded(remote, text, long_input="end")


async def test_a_server_that_reads_all_or_refuses_what_is_too_long_is_asked_as_ever():
    for answer in (serving_openai(Weights("a")), serving_openai(Weights("a"), refuses=300)):
        async with over("openai", answer) as (_, remote):
            text = words(290)
            np.testing.assert_allclose((await embedded(remote, text)).rows[0], Weights("a").vector(text), atol=1e-5)
    async with over("openai", serving_openai(Weights("a"), refuses=300)) as (_, remote):
        with pytest.raises(InputTooLong, match="300 tokens"):
            await embedded(remote, words(400))


async def test_a_length_is_looked_at_once():
    async with over("openai", serving_openai(Weights("a"))) as (server, remote):
        await embedded(remote, words(400))
        server.requests.clear()
        await embedded(remote, words(400, "other"))
        assert len(server.requests) == 1


@pytest.mark.parametrize(("text", "least"), [("a " * 100, 100), ("!" * 50, 50), ("3.14, " * 20, 100), ("雨" * 40, 40), ("", 0)])
def test_most_tokens_is_no_less_than_what_tokenizers_make(text, least):
    assert most_tokens(text) >= least


def llama(weights):
    """llama.cpp: unit vectors at its OpenAI door, the model's own at /embedding, a row a text."""

    def answer(request):
        if request.path == "/embedding":
            rows = weights.rows(request.body["content"])
            scale = 1 if request.body.get("embd_normalize") == -1 else 1 / np.linalg.norm(rows, axis=1, keepdims=True)
            return Said(body=[{"index": index, "embedding": [row.tolist()]} for index, row in enumerate(rows * scale)])
        if request.path != "/v1/embeddings":
            return Said(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})
        rows = weights.rows(request.body["input"])
        return vectors_said(request, rows / np.linalg.norm(rows, axis=1, keepdims=True))

    return answer


def tei_at_openai_s_door(weights):
    def answer(request):
        if request.path == "/embed":
            return Said(body=weights.rows(request.body["inputs"]).tolist()) if not request.body["normalize"] else Said(400)
        if request.path != "/v1/embeddings":
            return Said(404)
        rows = weights.rows(request.body["input"])
        return vectors_said(request, rows / np.linalg.norm(rows, axis=1, keepdims=True))

    return answer


@contextlib.asynccontextmanager
async def at_v1(answer):
    async with standin.Standin(answer).serving() as server:
        from gateway.tests.upstream.conftest import started

        async with started("openai", server, urls=[f"{server.url}/v1"]) as remote:
            yield remote


@pytest.mark.parametrize("door", [llama, tei_at_openai_s_door])
async def test_vectors_that_were_not_made_length_1_are_had_at_the_server_s_own_door(door):
    weights = Weights("a", scale=3.0)
    async with at_v1(door(weights)) as remote:
        raw = await embedded(remote, "a text", "another", normalize=False)
        unit = await embedded(remote, "a text", "another")
    np.testing.assert_allclose(raw.rows, weights.rows(["a text", "another"]), rtol=1e-5)
    np.testing.assert_allclose(3 * unit.rows, raw.rows, atol=1e-5)


async def test_a_server_that_gives_them_anyway_gives_them_as_they_are():
    weights = Weights("a", scale=3.0)
    async with over("openai", serving_openai(weights)) as (_, remote):
        raw = await embedded(remote, "a text", normalize=False)
    np.testing.assert_allclose(raw.rows[0], weights.vector("a text"), rtol=1e-5)


@pytest.mark.parametrize("backend", ["openai", "ollama"])
async def test_where_there_are_unit_vectors_only_normalize_false_is_refused_by_name(backend):
    async with over(backend, getattr(standin, backend)) as (_, remote):
        with pytest.raises(InvalidValue, match=r"'normalize'.*vectors of length 1 only") as refused:
            await embedded(remote, "a", normalize=False)
    assert refused.value.param == "normalize"


async def test_another_gateway_is_asked_in_its_own_words():
    weights = Weights("a", scale=3.0)

    def answer(request):
        if request.method == "GET":
            return Said(404)
        rows = weights.rows(request.body["input"])
        is_raw = request.body.get("normalize") is False
        rows = rows if is_raw else rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors_said(request, rows, **{"x-gateway-fingerprint": "abc.openvino-bfloat16"})

    async with over("openai", answer) as (_, remote):
        raw = await embedded(remote, "a text", normalize=False)
    np.testing.assert_allclose(raw.rows[0], weights.vector("a text"), rtol=1e-5)


async def test_a_batch_that_can_never_work_is_noticed_at_the_start_and_texts_go_alone():
    """Two ways: the numbers of a reply are wrong for more than one text, and more than one is refused."""

    def misnumbered(request):
        said = standin.openai(request, encoding="float")
        for item in said.body.get("data", ()):
            item["index"] = 0
        return said

    def refusing(request):
        return Said(500, b"") if request.method == "POST" and len(request.body["input"]) > 1 else standin.openai(request)

    for answer in (misnumbered, refusing):
        async with over("openai", answer) as (server, remote):
            assert remote.health().learned == {"max_inputs": 1}
            vectors = await embedded(remote, "a", "b", "c")
            assert [len(request.body["input"]) for request in server.requests] == [1, 1, 1]
        np.testing.assert_allclose(vectors.rows, standin.vectors(["a", "b", "c"]), atol=1e-6)


async def test_a_text_that_a_server_refuses_as_too_long_at_the_start_counts_against_nobody():
    def answer(request):
        is_long = request.method == "POST" and any(len(text.split()) > 100 for text in request.body["input"])
        return Said(500, {"error": {"message": "zorp"}}) if is_long else standin.openai(request)

    async with over("openai", answer, breaker_failures=1) as (_, remote):
        assert remote.endpoints.endpoints[0].breaker.num_in_a_row == 0
        assert remote.health().is_available
