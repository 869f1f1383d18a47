"""The multilingual model's architecture, small: each language as sentence-transformers embeds it, and of length 1."""

import base64
import json

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer as FastTokenizer

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, EngineSettings, ModelRow, StoreSettings
from gateway.engine.fidelity import cosines
from gateway.testing.multilingual import EMOJI, FIRST, LAST, MIXED, READS, SENTENCES, all_sentences, made
from gateway.tests.engine.conftest import DATA, embedded, local_of
from gateway.tests.wire.test_token_ids_ranks import ENCODING

TEXTS = [*all_sentences(), EMOJI, MIXED, " 在北京 ", "ﬁne ½ Ⅻ ｱｲｳ", "e\u0301 é", "\u200f\u200e", "x" * 400]
ASKED = [SENTENCES["Chinese"][0], SENTENCES["Arabic"][0], SENTENCES["Hindi"][0], EMOJI, MIXED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(tmp_path_factory.mktemp("multilingual"))


@pytest.fixture(scope="module")
def model(folder):
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def test_it_has_the_peculiarities_of_the_real_one(folder, model):
    tokenizer = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    assert [tokenizer.token_to_id(token) for token in FIRST] == [0, 1, 2, 3]
    assert tokenizer.token_to_id(LAST) == tokenizer.get_vocab_size() - 1
    assert tokenizer.truncation["max_length"] == tokenizer.padding["length"] == READS
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["pad_token_id"], tokenizer.padding["pad_id"]) == ("bert", 0, 1)
    assert config["vocab_size"] > tokenizer.get_vocab_size()
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
async def test_each_language_is_embedded_as_encode_does(folder, model, runtime):
    local = local_of(folder, runtime=runtime, precision="float32")
    await local.start()
    expected = model.encode(TEXTS, batch_size=1)
    assert not np.allclose(np.linalg.norm(expected, axis=1), 1, atol=0.01)  # or unit length would prove nothing
    rows, prepared = await embedded(local, *TEXTS, normalize=False, long_input="end")
    assert cosines(rows, expected).min() >= 0.99999
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    unit, _ = await embedded(local, *TEXTS, long_input="end")
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    assert cosines(unit, expected).min() >= 0.99999
    assert prepared.token_counts == [len(model.tokenizer(text, truncation=False)["input_ids"]) for text in TEXTS]
    assert len(set(map(bytes, rows))) == len(TEXTS)
    await local.close()


async def test_a_text_longer_than_it_reads_is_counted_in_full_and_averaged(folder):
    local = local_of(folder, runtime="torch", precision="float32")
    await local.start()
    text = " ".join(SENTENCES["Hindi"] * 10)
    rows, prepared = await embedded(local, text)
    assert prepared.token_counts[0] > 2 * READS
    assert prepared.is_long == [True]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    await local.close()


@pytest.fixture
async def client(folder, tmp_path):
    row = ModelRow(name="multilingual", settings={"source": str(folder), "runtime": "torch", "precision": "float32"})
    gateway = Gateway(
        Config(
            auth=AuthSettings(mode="none"),
            store=StoreSettings(data_dir=str(DATA)),
            engine=EngineSettings(warmup_seconds=0),
            models=(row,),
        )
    )
    await gateway.load()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway), base_url="http://gateway") as client:
        yield client
    await gateway.close()


async def asked(client, given, **options):
    reply = await client.post("/v1/embeddings", json={"model": "multilingual", "input": given, **options})
    assert reply.status_code == 200, reply.text
    rows = [item["embedding"] for item in reply.json()["data"]]
    if options.get("encoding_format") == "base64":
        return np.stack([np.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows]), reply.json()["usage"]
    return np.array(rows, dtype=np.float32), reply.json()["usage"]


async def test_every_form_of_a_request_gives_the_same_vectors_and_the_same_usage(client, model):
    expected = model.encode(ASKED, batch_size=1, normalize_embeddings=True)
    ids = [ENCODING.encode(text) for text in ASKED]
    forms = {
        "a list": (ASKED, {}),
        "base64": (ASKED, {"encoding_format": "base64"}),
        "float": (ASKED, {"encoding_format": "float"}),
        "token ids": (ids, {}),
        "token ids as base64": (ids, {"encoding_format": "base64"}),
    }
    usages = []
    for given, options in forms.values():
        rows, usage = await asked(client, given, **options)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        usages.append(usage)
    assert usages == [usages[0]] * len(forms)
    for text, token_ids, vector in zip(ASKED, ids, expected, strict=True):
        for given in (text, [text], token_ids):
            rows, _ = await asked(client, given)
            np.testing.assert_allclose(rows, [vector], atol=1e-5)
    rows, _ = await asked(client, ASKED, dimensions=8)
    np.testing.assert_allclose(rows, expected[:, :8] / np.linalg.norm(expected[:, :8], axis=1, keepdims=True), atol=1e-5)
