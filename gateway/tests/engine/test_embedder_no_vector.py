"""What is no vector never leaves: zeros, `truncate_dim` honoured as `encode` does, and devices that fail on every batch."""

import asyncio
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from gateway.app import Gateway
from gateway.config import load
from gateway.embedding.vectors import is_vector, refuse_no_vector
from gateway.engine.encoder import Window
from gateway.engine.fidelity import Proof
from gateway.engine.identity import Identity
from gateway.engine.loaded_model import LoadedModel
from gateway.errors import ModelUnavailable, OperatorError, Unembeddable
from gateway.testing.fakes import FakeEncoder
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import posted
from gateway.tests.engine.conftest import embedded, inputs_of, local_of
from gateway.tests.engine.test_engine_any_model import made

TEXTS = ["the red server", "a", "we and you in the long text of a model"]
dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def truncated(folder, target, value):
    shutil.copytree(folder, target)
    path = target / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncate_dim": value}))
    return target


@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "with Normalize"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
async def test_truncate_dim_is_honoured_as_encode_does(runtime, normalize, tmp_path):
    folder = truncated(made(tmp_path, normalize=normalize), tmp_path / "cut", 12)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    local = local_of(folder, runtime=runtime, precision="float32", data_dir=tmp_path / "data")
    await local.start()
    assert local.describe().dimensions == 12
    rows, _ = await embedded(local, *TEXTS, normalize=False, long_input="end")
    np.testing.assert_allclose(rows, model.encode(TEXTS, batch_size=1), atol=1e-5)
    rows, _ = await embedded(local, *TEXTS, long_input="end")
    np.testing.assert_allclose(rows, model.encode(TEXTS, batch_size=1, normalize_embeddings=True), atol=1e-5)
    await local.close()


@pytest.mark.parametrize(("value", "dimensions"), [(64, 32), (32, 32), (None, 32), (1, 1)])
async def test_truncate_dim_beyond_what_there_is_changes_nothing(value, dimensions, small_model, tmp_path):
    folder = truncated(small_model, tmp_path / "cut", value)
    local = local_of(folder, runtime="torch", precision="float32", data_dir=tmp_path / "data")
    await local.start()
    rows, _ = await embedded(local, *TEXTS, normalize=False)
    assert rows.shape == (3, dimensions)
    assert local.describe().dimensions == dimensions
    await local.close()


@pytest.mark.parametrize("value", [0, -3, "12", 1.5, True])
async def test_a_truncate_dim_that_is_no_number_of_dimensions_is_refused(value, small_model, tmp_path):
    local = local_of(truncated(small_model, tmp_path / "cut", value), runtime="torch", data_dir=tmp_path / "data")
    with pytest.raises(OperatorError, match="truncate_dim"):
        await local.start()
    await local.close()


async def test_a_request_may_ask_for_fewer_dimensions_than_truncate_dim_leaves_and_not_for_more(small_model, tmp_path):
    folder = truncated(small_model, tmp_path / "cut", 12)
    row = {"name": "m", "source": str(folder), "runtime": "torch", "download": False}
    environ = {
        "GATEWAY__AUTH": "none", "GATEWAY__MODELS": json.dumps([row]), "GATEWAY_DATA_DIR": str(tmp_path),
        "GATEWAY__SERVER__PORT": "0",
    }  # fmt: skip
    gateway = Gateway(load(environ=environ))
    whole = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    with served(gateway) as address:
        for dimensions in (None, 12, 5):
            asked = {} if dimensions is None else {"dimensions": dimensions}
            reply = await posted(address, TEXTS, **asked)
            assert reply.status == 200, reply
            rows = np.array([each["embedding"] for each in reply.json()["data"]])
            expected = whole.encode(TEXTS, batch_size=1, truncate_dim=dimensions or 12, normalize_embeddings=True)
            np.testing.assert_allclose(rows, expected, atol=1e-5)
        reply = await posted(address, TEXTS, dimensions=13)
        assert (reply.status, reply.json()["error"]["param"]) == (400, "dimensions")


def test_rows_that_are_vectors():
    rows = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [-0.0, 0], [1e-40, 0]], dtype=np.float32)
    assert is_vector(rows).tolist() == [True, False, False, False, False, True]
    refuse_no_vector(rows[:1], inputs_of("x"))
    with pytest.raises(Unembeddable, match=r"'input\[1\]': it gave a vector of zeros"):
        refuse_no_vector(rows, inputs_of("x", "y"))
    with pytest.raises(Unembeddable, match=r"'input\[0\]': it gave a vector with values that are not numbers"):
        refuse_no_vector(rows[2:], inputs_of("x", "y"))


@pytest.mark.parametrize("runs", ["alone", "among others"])
async def test_a_vector_of_zeros_fails_its_own_request(runs, small_model, tmp_path):
    local = local_of(small_model, runtime="torch", data_dir=tmp_path)
    await local.start()
    encoder = local.devices[0].encoder
    red = local.tokenizer.fast.token_to_id("red")
    before = encoder.embed

    def embed(windows):
        rows = before(windows)
        rows[[red in window.token_ids for window in windows]] = 0
        return rows

    encoder.embed = embed
    texts = ["red"] if runs == "alone" else ["blue", "red", "green"]
    with pytest.raises(Unembeddable, match=rf"'input\[{texts.index('red')}\]': it gave a vector of zeros") as caught:
        await embedded(local, *texts)
    assert caught.value.headers()["x-should-retry"] == "false"
    rows, _ = await embedded(local, "blue")
    assert np.linalg.norm(rows) == pytest.approx(1, abs=1e-5)
    await local.close()


async def test_windows_that_cancel_each_other_are_no_vector(small_model, tmp_path):
    local = local_of(small_model, runtime="torch", data_dir=tmp_path)
    await local.start()
    signs = iter([1.0, -1.0] * 50)
    local.devices[0].encoder.embed = lambda windows: np.array([[next(signs)] * 32 for _ in windows], dtype=np.float32)
    prepared = await local.prepare(inputs_of("a " * 60))
    assert len(prepared.work.windows) == 2
    with pytest.raises(Unembeddable, match="a vector of zeros"):
        await local.embed(prepared)
    await local.close()


async def test_a_vector_whose_length_is_infinite_is_no_vector(small_model, tmp_path):
    local = local_of(small_model, runtime="torch", data_dir=tmp_path)
    await local.start()
    local.devices[0].encoder.embed = lambda windows: np.full((len(windows), 32), 1e30, dtype=np.float32)
    with np.errstate(over="ignore"), pytest.raises(Unembeddable):
        await embedded(local, "a")
    await local.close()


WAYS = {
    "raises": RuntimeError("an illegal memory access was encountered"),
    "gives NaN": np.full(4, np.nan),
    "gives zeros": np.zeros(4),
    "gives another dimension": np.ones(5),
}


def failing(way):
    """An encoder that does so from now on."""

    def embed(windows):
        if isinstance(way, Exception):
            raise way
        return np.stack([way.astype(np.float32)] * len(windows))

    return embed


@dies
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_device_that_fails_on_every_batch_is_a_failed_model_that_says_so(way, small_model, tmp_path):
    local = local_of(small_model, data_dir=tmp_path)
    encoder, window = FakeEncoder(), Window([2, 5, 3])
    encoder.info = local_info(encoder, small_model)
    proof = Proof(window, encoder.embed([window])[0])
    local.start_devices(LoadedModel([encoder], identity(), 1.0, proof))
    await embedded(local, "red")
    encoder.embed = failing(way)
    for _ in range(10):
        with pytest.raises(ModelUnavailable) as caught:
            await embedded(local, "red", "blue")
        assert caught.value.headers()["Retry-After"]
        if local.devices[0].failed:
            break
    async with asyncio.timeout(5):
        while local.health().state != "failed":
            await asyncio.sleep(0.01)
    with pytest.raises(ModelUnavailable, match=r"This model has failed\. Its device fails\."):
        await embedded(local, "red")
    await local.close()


def local_info(encoder, folder):
    return replace(encoder.info, tokenizer_json=(folder / "tokenizer.json").read_text())


def identity():
    return Identity(weights="w" * 64, tokenizer="t" * 64, pooling="p" * 64, configuration="c" * 64, created=1_700_000_000)


async def test_ready_means_that_a_known_vector_came_out_of_the_whole_road(small_model, tmp_path):
    """An artifact whose proof is another vector: what it was measured by is not what it gives."""
    first = local_of(small_model, runtime="torch", data_dir=tmp_path)
    await first.start()
    await first.close()
    [place] = (tmp_path / "models").iterdir()
    path = place / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["proof"]["row"] = manifest["proof"]["row"][::-1].replace("=", "A")[: len(manifest["proof"]["row"]) - 1] + "="
    path.write_text(json.dumps(manifest))
    second = local_of(small_model, runtime="torch", data_dir=tmp_path)
    with pytest.raises(OperatorError, match="of a text whose vector is known, the loaded model gives"):
        await second.start()
    assert second.health().state == "failed"
    await second.close()
