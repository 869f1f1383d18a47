"""What each kind of server is asked, and what its reply becomes."""

import asyncio
import json

import numpy as np
import pytest

from gateway.errors import InvalidValue, OperatorError, UpstreamError
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import DIMENSIONS, Said
from gateway.tests.upstream.conftest import embedded, over
from gateway.upstream.ollama import OLLAMA

ANSWERS = {"openai": standin.openai, "ollama": standin.ollama, "tei": standin.tei}
PATHS = {"openai": "/embeddings", "ollama": "/api/embed", "tei": "/embed"}
TEXTS = ["one small text", "another", "ein dritter, größerer"]


@pytest.fixture(params=ANSWERS)
def backend(request):
    return request.param


async def test_vectors_come_in_the_order_of_the_texts_at_length_1(backend):
    async with over(backend, ANSWERS[backend]) as (server, remote):
        vectors = await embedded(remote, *TEXTS)
        assert [request.path for request in server.requests] == [PATHS[backend]]
    np.testing.assert_allclose(vectors.rows, standin.vectors(TEXTS), atol=1e-6)
    assert (vectors.rows.dtype, vectors.rows.shape) == (np.float32, (3, DIMENSIONS))
    assert vectors.stages.keys() == {"upstream"}


async def test_the_tokens_are_those_the_upstream_counted(backend):
    async with over(backend, ANSWERS[backend]) as (_, remote):
        prepared = await remote.prepare(standin_inputs())
        vectors = await remote.embed(prepared)
        alone = await embedded(remote, TEXTS[0])
    assert sum(vectors.token_counts) == standin.words(TEXTS) != prepared.num_tokens
    assert alone.token_counts == [standin.words(TEXTS[:1])]
    assert min(vectors.token_counts) >= 1


def standin_inputs():
    from gateway.tests.upstream.conftest import inputs

    return inputs(*TEXTS)


async def test_what_is_known_of_it_is_described(backend):
    async with over(backend, ANSWERS[backend]) as (_, remote):
        about = remote.describe()
        assert remote.health().state == "ready"
    assert (about.backend, about.dimensions, about.long_input) == (backend, DIMENSIONS, "error")
    assert about.max_tokens == (512 if backend == "tei" else 8192)
    assert about.fingerprint.endswith(f".{backend}-unknown")


async def test_openai_is_asked_for_bytes_with_the_key_and_the_model_of_the_row(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret\n")
    settings = {
        "model": "text-embedding-3-large",
        "key": {"env": "SOME_KEY"},
        "headers": {"OpenAI-Organization": "org", "X-Team": {"env": "SOME_KEY"}},
        "dimensions": 4,
        "extra_body": {"truncate_prompt_tokens": -1},
        "query": {"api-version": "2024-10-21"},
    }
    async with over("openai", standin.openai, **settings) as (server, remote):
        await embedded(remote, "a")
        [request] = server.requests
    assert request.path == "/embeddings?api-version=2024-10-21"
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert (request.headers["openai-organization"], request.headers["x-team"]) == ("org", "sk-secret")
    assert request.body == {
        "truncate_prompt_tokens": -1,
        "model": "text-embedding-3-large",
        "input": ["a"],
        "encoding_format": "base64",
        "dimensions": 4,
    }


async def test_azure_has_the_key_alone_in_a_header_of_its_own(tmp_path):
    path = tmp_path / "key"
    path.write_text("0123456789abcdef\n")
    async with over("openai", standin.openai, key={"file": str(path)}, key_header="api-key") as (server, remote):
        await embedded(remote, "a")
        assert server.requests[0].headers["api-key"] == "0123456789abcdef"
        assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("answers_with", ["floats", "a refusal"])
async def test_a_server_without_base64_is_asked_for_it_once(answers_with):
    def answer(request):
        if answers_with == "a refusal" and "encoding_format" in request.body:
            return standin.openai_error(400, "Unrecognized request argument supplied: encoding_format")
        return standin.openai(request, encoding="float")

    async with over("openai", answer) as (server, remote):
        vectors = await embedded(remote, *TEXTS)
        assert "encoding_format" not in server.requests[0].body
        assert len(server.requests) == 1
    np.testing.assert_allclose(vectors.rows, standin.vectors(TEXTS), atol=1e-6)


async def test_ollama_is_asked_in_its_own_words():
    async with over("ollama", standin.ollama, model="nomic-embed-text", keep_alive="10m", dimensions=4) as (server, remote):
        await embedded(remote, "a", "b")
        assert server.requests[0].body == {
            "model": "nomic-embed-text",
            "input": ["a", "b"],
            "truncate": False,
            "dimensions": 4,
            "keep_alive": "10m",
        }


async def test_a_model_that_ollama_does_not_have_is_told_with_what_mends_it():
    with pytest.raises(OperatorError, match=r"does not have the model `absent`.*`ollama pull absent` there mends it"):
        async with over("ollama", standin.ollama, model="absent"):
            pass


async def test_a_model_that_is_removed_from_ollama_later_is_told_so_too():
    async with over("ollama", standin.ollama) as (server, remote):
        server.answer = lambda request: Said(404, {"error": f"model '{request.body['model']}' not found"})
        with pytest.raises(UpstreamError, match="`ollama pull m` there mends it") as refused:
            await embedded(remote, "a")
    assert refused.value.headers() == {"x-should-retry": "false"}


@pytest.mark.parametrize(("digest", "identity"), [("0a109f422b47", "0a109f422b47"), ("0" * 64, ""), ("", "")])
def test_a_gateway_that_has_not_loaded_its_model_has_no_digest_of_it(digest, identity):
    tags = {"models": [{"name": "other:latest", "digest": "ff"}, {"name": "m:latest", "digest": digest}]}
    assert OLLAMA.read_info(json.dumps(tags).encode(), "m").identity == identity


@pytest.mark.parametrize("backend", ["ollama", "tei"])
async def test_long_texts_are_cut_there_only_where_the_rule_says_so(backend):
    async with over(backend, ANSWERS[backend]) as (server, remote):
        await embedded(remote, "a")
        await embedded(remote, "a", long_input="end")
        assert [request.body["truncate"] for request in server.requests] == [False, True]
    async with over(backend, ANSWERS[backend], long_input="end") as (server, remote):
        await embedded(remote, "a")
        await embedded(remote, "a", long_input="error")
        assert [request.body["truncate"] for request in server.requests] == [True, False]


@pytest.mark.parametrize(("backend", "rule"), [("openai", "end"), ("openai", "chunk"), ("ollama", "chunk"), ("tei", "chunk")])
async def test_a_rule_that_the_upstream_does_not_know_is_refused(backend, rule):
    async with over(backend, ANSWERS[backend]) as (_, remote):
        with pytest.raises(InvalidValue, match=f"but not {rule}") as refused:
            await embedded(remote, "a", long_input=rule)
    assert refused.value.param == "long_input"


async def test_tei_gives_what_its_model_gave_where_nothing_is_normalized():
    async with over("tei", standin.tei) as (_, remote):
        raw = await embedded(remote, "a", normalize=False)
        unit = await embedded(remote, "a")
    np.testing.assert_allclose(raw.rows, 3 * unit.rows, rtol=1e-5)


async def test_the_prompt_of_an_input_type_is_put_before_each_text(backend):
    async with over(backend, ANSWERS[backend], prompts={"query": "query: "}) as (server, remote):
        asked = await embedded(remote, "a", "b", input_type="query")
        plain = await embedded(remote, "a", "b", input_type="document")
        sent = [request.body.get("input") or request.body.get("inputs") for request in server.requests]
    assert sent == [["query: a", "query: b"], ["a", "b"]]
    np.testing.assert_allclose(asked.rows, standin.vectors(["query: a", "query: b"]), atol=1e-6)
    np.testing.assert_allclose(plain.rows, standin.vectors(["a", "b"]), atol=1e-6)


INPUT_TYPES = {"query": {"task": "retrieval.query"}, "document": {"task": "retrieval.passage", "late_chunking": False}}


async def test_an_input_type_says_its_fields_to_a_server_that_puts_prompts_before_texts_itself():
    extra = {"task": "text-matching", "truncate": "NONE"}
    async with over("openai", standin.openai, extra_body=extra, input_types=INPUT_TYPES) as (server, remote):
        assert remote.describe().prompts == ("query", "document")
        for input_type in ("query", "document", None):
            await embedded(remote, "a", input_type=input_type)
        sent = [{name: value for name, value in request.body.items() if name not in EVERY_BODY} for request in server.requests]
        assert [request.body["input"] for request in server.requests] == [["a"]] * 3
    assert sent == [
        {"task": "retrieval.query", "truncate": "NONE"},
        {"task": "retrieval.passage", "truncate": "NONE", "late_chunking": False},
        {"task": "text-matching", "truncate": "NONE"},
    ]


EVERY_BODY = {"model", "input", "encoding_format"}


async def test_what_an_input_type_says_is_part_of_the_fingerprint():
    found = set()
    for types in ({}, INPUT_TYPES, {"query": {"task": "q"}}):
        async with over("openai", standin.openai, input_types=types) as (_, remote):
            found.add(remote.describe().fingerprint)
    assert len(found) == 3


async def test_dimensions_that_the_upstream_does_not_give_are_refused_at_the_start():
    with pytest.raises(OperatorError, match="its vectors have 8 dimensions and not 512"):
        async with over("tei", standin.tei, dimensions=512):
            pass


async def test_another_gateway_s_fingerprint_is_the_models_own():
    def answer(request):
        said = standin.openai(request)
        said.headers["x-gateway-fingerprint"] = "abc.openvino-bfloat16"
        return said

    async with over("openai", answer) as (server, remote):
        assert remote.describe().fingerprint == "abc.openvino-bfloat16"

        def other(request):
            said = standin.openai(request)
            said.headers["x-gateway-fingerprint"] = "abd.openvino-bfloat16"
            return said

        server.answer = other
        with pytest.raises(UpstreamError, match="its vectors are others than when it was first asked"):
            await embedded(remote, "a")
    async with over("openai", answer, prompts={"query": "q"}) as (_, prompted):
        assert prompted.describe().fingerprint.endswith(".openai-unknown")


@pytest.mark.parametrize("told", ["caf\xe9", "a" * 129, "a b", ""])
async def test_what_is_no_fingerprint_is_none(told):
    def answer(request):
        content = standin.openai(request).bytes()
        return Said(raw=content.replace(b"\r\n\r\n", b"\r\nx-gateway-fingerprint: %b\r\n\r\n" % told.encode("latin-1"), 1))

    async with over("openai", answer) as (_, remote):
        assert remote.describe().fingerprint.endswith(".openai-unknown")


async def test_a_server_that_has_base64_no_more_costs_no_request_that_was_under_way():
    gate, has_base64 = asyncio.Event(), True

    def answer(request):
        if not has_base64 and b"base64" in request.content:
            return Said(400, {"error": {"message": "encoding_format base64 is not supported"}}, gate=gate)
        return standin.openai(request)

    async with over("openai", answer) as (server, remote), asyncio.TaskGroup() as group:
        has_base64 = False
        tasks = [group.create_task(embedded(remote, f"text {number}")) for number in range(3)]
        while server.num_open < 3:
            await asyncio.sleep(0.005)
        gate.set()
    assert [task.result().rows.shape for task in tasks] == [(1, DIMENSIONS)] * 3


async def test_a_fingerprint_tells_models_dimensions_and_revisions_apart(backend):
    found = set()
    for settings in (
        {},
        {"dimensions": 4} if backend != "tei" else {"prompts": {"query": "q"}},
        {"model": "x"} if backend != "tei" else {},
    ):
        async with over(backend, ANSWERS[backend], **settings) as (_, remote):
            found.add(remote.describe().fingerprint)
    assert len(found) == (2 if backend == "tei" else 3)
