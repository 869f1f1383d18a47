"""Batches from their making to their files, through the routes that clients use."""

import base64

import numpy as np
import pytest

from gateway.testing.fakes import hashed
from gateway.tests.batches.conftest import OTHER_KEY, client_of, content, created, ended, line, upload


async def test_each_request_of_a_batch_is_answered_once_in_the_order_of_the_file(gateway, client):
    file = await upload(gateway, b"".join(line(f"id-{number}", f"text {number}") for number in range(5000)))
    batch = await created(client, file, metadata={"corpus": "all"})
    assert batch["object"] == "batch"
    assert batch["status"] == "validating"
    assert batch["metadata"] == {"corpus": "all"}
    done = await ended(client, batch)
    assert done["status"] == "completed"
    assert done["model"] == "m"
    assert done["request_counts"] == {"total": 5000, "completed": 5000, "failed": 0}
    assert done["usage"]["input_tokens"] == done["usage"]["total_tokens"] == 10_000
    assert done["error_file_id"] is None
    assert done["errors"] is None
    lines = await content(gateway, done["output_file_id"])
    assert [each["custom_id"] for each in lines] == [f"id-{number}" for number in range(5000)]
    assert len({each["id"] for each in lines}) == 5000
    first = lines[0]
    assert first["error"] is None
    assert first["response"]["status_code"] == 200
    body = first["response"]["body"]
    assert body["object"] == "list"
    assert body["model"] == "m"
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert np.allclose(body["data"][0]["embedding"], hashed("text 0", 8))


async def test_a_reply_of_a_batch_is_that_of_the_endpoint(gateway, client):
    texts, more = ["one text", "another"], {"encoding_format": "base64", "dimensions": 4}
    file = await upload(gateway, line("a", texts, **more) + line("b", "alone") + line("c", texts, **more))
    done = await ended(client, await created(client, file))
    lines = {each["custom_id"]: each["response"]["body"] for each in await content(gateway, done["output_file_id"])}
    asked = await client.post("/v1/embeddings", json={"model": "m", "input": texts, **more})
    assert lines["a"] == lines["c"] == asked.json()
    assert len(base64.b64decode(lines["a"]["data"][1]["embedding"])) == 16


async def test_requests_that_fail_are_in_the_error_file_as_the_endpoint_answers_them(gateway, client, embedder):
    embedder.poison = "poison"
    bad = [
        line("poison", ["fine", "poison"]), line("empty", ""), line("dimensions", "a", dimensions=99), line("type", 7),
    ]  # fmt: skip
    good = [line(f"good-{number}", f"good {number}") for number in range(20)]
    file = await upload(gateway, b"".join([*good[:10], *bad, *good[10:]]))
    done = await ended(client, await created(client, file))
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 24, "completed": 20, "failed": 4}
    assert len(await content(gateway, done["output_file_id"])) == 20
    errors = {each["custom_id"]: each["response"] for each in await content(gateway, done["error_file_id"])}
    assert list(errors) == ["poison", "empty", "dimensions", "type"]
    assert [errors[name]["status_code"] for name in errors] == [500, 400, 400, 400]
    assert errors["poison"]["body"]["error"]["message"].startswith("The model cannot embed 'input[1]'")
    asked = await client.post("/v1/embeddings", json={"model": "m", "input": "a", "dimensions": 99})
    assert errors["dimensions"]["body"] == asked.json()


async def test_rerank_lines_are_answered(gateway, client):
    body = {"model": "r", "query": "a query", "documents": ["first", "second"]}
    file = await upload(gateway, b"".join(rerank_line(str(number), body) for number in range(50)))
    done = await ended(client, await created(client, file, endpoint="/v1/rerank"))
    assert done["status"] == "completed", done
    lines = await content(gateway, done["output_file_id"])
    asked = (await client.post("/v1/rerank", json=body)).json()
    assert [each["custom_id"] for each in lines] == [str(number) for number in range(50)]
    assert lines[7]["response"]["body"]["results"] == asked["results"]


def rerank_line(custom_id, body):
    import json

    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/rerank", "body": body}).encode() + b"\n"


async def test_a_batch_is_seen_by_its_key_alone(gateway, client):
    batch = await created(client, await upload(gateway, line("a")))
    async with client_of(gateway, OTHER_KEY) as other:
        assert (await other.get(f"/v1/batches/{batch['id']}")).status_code == 404
        assert (await other.post(f"/v1/batches/{batch['id']}/cancel")).status_code == 404
        assert (await other.get("/v1/batches")).json()["data"] == []
        refused = await other.post("/v1/batches", json={**REQUIRED, "input_file_id": batch["input_file_id"]})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input_file_id"


async def test_batches_are_listed_page_by_page_the_newest_first(gateway, client):
    file = await upload(gateway, line("a"))
    made = [(await created(client, file))["id"] for _ in range(5)]
    seen, after = [], {}
    while True:
        page = (await client.get("/v1/batches", params={"limit": 2, **after})).json()
        assert page["object"] == "list"
        assert page["first_id"] == page["data"][0]["id"]
        seen += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert sorted(seen) == sorted(made)
    assert len((await client.get("/v1/batches?after=")).json()["data"]) == 5
    unknown = await client.get("/v1/batches", params={"after": "batch_unknown"})
    assert unknown.status_code == 404
    assert "No batch found with id 'batch_unknown'" in unknown.json()["error"]["message"]


REQUIRED = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"input_format": {"colum": "x"}}, "input_format"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at"}}, "output_expires_after"),
        ({"output_expires_after": 3600}, "output_expires_after"),
        ({"model": "m\0"}, "model"),
        ({}, "input_file_id"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_the_name_of_its_field(client, body, param):
    refused = await client.post("/v1/batches", json={**REQUIRED, **body})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text


async def test_a_file_of_another_purpose_is_no_input(gateway, client):
    file = await upload(gateway, line("a"), purpose="user_data")
    refused = await client.post("/v1/batches", json={**REQUIRED, "input_file_id": file})
    assert refused.status_code == 400
    assert "purpose 'batch'" in refused.json()["error"]["message"]


async def test_the_files_of_replies_expire_when_the_client_said(gateway, client):
    batch = await created(client, await upload(gateway, line("a")), output_expires_after={"anchor": "created_at", "seconds": 3600})
    done = await ended(client, batch)
    files = gateway.generation.files
    file = await files.get(
        (await gateway.access_control.authenticate(lambda: client.headers["authorization"][7:])).public_id, done["output_file_id"]
    )
    assert file.expires_at == pytest.approx(file.created_at + 3600)
    assert file.purpose == "batch_output"
    assert file.filename == f"{batch['id']}_output.jsonl"


async def test_rows_of_gateway_embed_are_requests_of_the_batchs_model(gateway, client):
    file = await upload(gateway, b'{"id": "a", "text": "one"}\n\n{"id": 7, "text": "two"}\n{"text": "three", "other": 1}\n')
    done = await ended(client, await created(client, file, model="m"))
    assert done["status"] == "completed", done
    lines = {each["custom_id"]: each["response"]["body"] for each in await content(gateway, done["output_file_id"])}
    assert list(lines) == ["a", "7", "4"]
    assert np.allclose(lines["7"]["data"][0]["embedding"], hashed("two", 8))


async def test_half_a_surrogate_pair_in_a_text_is_answered_as_by_the_endpoint_and_in_an_id_it_is_named(gateway, client):
    asked = await client.post("/v1/embeddings", content=b'{"model": "m", "input": "cut \\ud83d"}')
    sent = line("a", "cut QQ").replace(b"QQ", b"\\ud83d") + line("b \ufffd")
    done = await ended(client, await created(client, await upload(gateway, sent)))
    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}, done
    found = [each["response"]["body"] for each in await content(gateway, done["output_file_id"])]
    assert found[0]["data"] == asked.json()["data"]
    wrong = line("QQ").replace(b"QQ", b"\\ud83d")
    done = await ended(client, await created(client, await upload(gateway, line("a") + wrong)))
    assert [(each["code"], each["param"], each["line"]) for each in done["errors"]["data"]] == [("invalid_value", "custom_id", 2)]
