"""What text-embeddings-inference 1.9.3 answered for all-MiniLM-L6-v2, asked of our door with the same model.

`tei_recorded.jsonl` has its requests and replies, as they were recorded on 2026-11-28: a server with auto-truncation, and for the
cases "no truncation" one without, which is a request with `truncate` false here. Times are left out, long arrays cut to their first
numbers. Statuses, headers, shapes and numbers are the same, but for what `DIFFERENCES` says.
"""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, EngineSettings, ModelRow, ServerSettings, StoreSettings
from gateway.testing.folder import folder_of
from gateway.testing.gateway_thread import served

LOAD_SECONDS = 240  # of a busy machine; a few on an idle one
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CASES = [json.loads(line) for line in (Path(__file__).parent / "tei_recorded.jsonl").read_text(encoding="utf-8").splitlines()]
# Statuses of ours that differ, each with its reason.
DIFFERENCES = {
    "embed, 33 inputs": 200,  # 2,048 inputs are allowed
    "embed_all": 424,  # token vectors are given by a model that was trained for them
    "embed, truncation_direction": 422,  # only the end of a text is cut here, and no option is ignored
}
ERRORS_WITH_A_BODY = {"embed, GET"}  # TEI's has none; ours says what is wrong
OUR_NUMBERS = {"embed not normalised"}  # the model's own modules end in one that normalises: they are obeyed here
TOLERANCE = 5e-4  # TEI's GELU is an approximation
OUR_VALUES = {"x-compute-type": "cpu+optimized"}
OF_THE_SERVER = {  # fields of /info whose values are a server's own
    "model_id", "model_sha", "served_model_name", "max_concurrent_requests", "max_batch_tokens", "max_batch_requests",
    "max_client_batch_size", "tokenization_workers", "version", "sha",
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = str(folder_of(MINILM, download=False))
    settings = {
        "source": folder, "download": False, "long_input": "end", "runtime": "torch", "precision": "float32", "device": "cpu",
    }  # fmt: skip
    config = Config(
        server=ServerSettings(port=0),
        auth=AuthSettings(mode="none"),
        engine=EngineSettings(warmup_seconds=0),
        store=StoreSettings(data_dir=str(tmp_path_factory.mktemp("tei"))),
        models=(ModelRow(name="all-MiniLM-L6-v2", backend="sentence-transformers", settings=settings),),
    )
    with served(Gateway(config), wait_seconds=LOAD_SECONDS) as found:
        yield f"http://{found[0]}:{found[1]}"


def grown(sent):
    """A body with its long texts and arrays."""
    if isinstance(sent, list):
        return [grown(each) for each in sent]
    if not isinstance(sent, dict):
        return sent
    if "repeat" in sent:
        return sent["repeat"][0] * sent["repeat"][1]
    if "items" in sent:
        return [sent["items"][0]] * sent["items"][1]
    return {name: grown(each) for name, each in sent.items()}


def check(found, recorded):
    """Equal, as far as it was recorded; numbers to what two runtimes differ by."""
    if isinstance(recorded, dict) and "numbers" in recorded:
        assert len(found) == recorded["numbers"]
        np.testing.assert_allclose(found[: len(recorded["first"])], recorded["first"], atol=TOLERANCE)
    elif isinstance(recorded, dict):
        assert set(recorded) <= set(found)
        for name, value in recorded.items():
            if name == "error":
                assert found[name].startswith("Input validation error: " if recorded["error_type"] == "Validation" else value[:15])
            elif name in OF_THE_SERVER:
                assert type(found[name]) is type(value) or value is None or found[name] is None
            else:
                check(found[name], value)
    elif isinstance(recorded, list):
        assert len(found) == len(recorded)
        for ours, theirs in zip(found, recorded, strict=True):
            check(ours, theirs)
    elif isinstance(recorded, float):
        assert found == pytest.approx(recorded, abs=TOLERANCE)
    else:
        assert found == recorded


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_a_recorded_request_gets_teis_answer(address, case):
    sent, recorded = case["request"], case["response"]
    flag = {"truncate": False} if case["case"].startswith("no truncation") else {}
    content = sent["raw"] if "raw" in sent else json.dumps(flag | grown(sent["body"])) if "body" in sent else None
    headers = {name.lower(): value for name, value in {"content-type": "application/json", **sent.get("headers", {})}.items()}
    reply = httpx.request(sent["method"], address + sent["path"], content=content, headers=headers)
    if case["case"] in DIFFERENCES:
        assert reply.status_code == DIFFERENCES[case["case"]]
        return
    assert reply.status_code == recorded["status"], reply.text
    if case["case"] in ERRORS_WITH_A_BODY:
        assert set(reply.json()) == {"error", "error_type"}
        assert "POST" in reply.headers["allow"]
        return
    for name, value in recorded["headers"].items():
        assert reply.headers[name] == OUR_VALUES.get(name, value), name
    if recorded["headers"]["content-type"].startswith("text/plain"):
        words = recorded["body"].partition(":")[0]
        assert reply.text.startswith(words)
    else:
        check(reply.json(), [{"numbers": 384, "first": []}] if case["case"] in OUR_NUMBERS else recorded["body"])


def test_every_difference_is_one_of_the_recorded_cases():
    assert set(DIFFERENCES) | ERRORS_WITH_A_BODY | OUR_NUMBERS <= {case["case"] for case in CASES}
