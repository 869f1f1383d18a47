"""Being watched: probes, metrics, the log line, and what they never hold."""

import asyncio
import json

import pytest

from gateway import log
from gateway.config import AuthSettings, MetricsSettings
from gateway.tests.api.conftest import KEY, Connection, client_of

MARKER = "unmistakable-marker-text"


def request_message(text="a"):
    return {"type": "http.request", "body": json.dumps({"model": "m", "input": text}).encode(), "more_body": False}


async def sample(client, name, **labels):
    """The value of one sample of /metrics; 0 where there is none."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in (await client.get("/metrics")).text.splitlines():
        found, _, value = line.rpartition(" ")
        if found.partition("{")[0] == name and wanted <= set(found.partition("{")[2].rstrip("}").split(",")):
            return float(value)
    return 0.0


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics"])
async def test_probes_need_no_key(stranger, path):
    assert (await stranger.get(path)).status_code == 200


async def test_metrics_may_need_a_key_or_not_be_there(make):
    for access, expected in (("key", [401, 200]), ("off", [404, 404])):
        gateway = make(metrics=MetricsSettings(access=access))
        await gateway.start()
        async with client_of(gateway) as client:
            replies = [await client.get("/metrics"), await client.get("/metrics", headers={"api-key": KEY})]
        assert [reply.status_code for reply in replies] == expected
        await gateway.close()


async def test_metrics_on_a_port_of_their_own_leave_the_main_one(make):
    gateway = make(metrics=MetricsSettings(port=19_999))
    async with client_of(gateway) as client:
        assert (await client.get("/metrics")).status_code == 404
    await gateway.close()


async def test_401_404_and_405_are_counted_as_what_they_are(client, stranger):
    await stranger.post("/v1/embeddings", json={})
    await stranger.get("/no/such/path")
    await stranger.get("/v1/embeddings")
    await stranger.request("BREW", "/v1/embeddings")
    name = "gateway_http_requests_total"
    assert await sample(client, name, route="/v1/embeddings", method="POST", status="401") == 1
    assert await sample(client, name, route="unmatched", method="GET", status="404") == 1
    assert await sample(client, name, route="/v1/embeddings", method="GET", status="405") == 1
    assert await sample(client, name, route="/v1/embeddings", method="other", status="405") == 1
    assert await sample(client, "gateway_auth_failures_total", reason="missing_api_key") == 1


async def test_a_request_is_counted_by_model_and_outcome(client):
    await client.post("/v1/embeddings", json={"model": "org/m", "input": ["one two", "three"]})
    await client.post("/v1/embeddings", json={"model": "m", "input": "a", "dimensions": 99})
    await client.post("/v1/embeddings", json={"model": MARKER, "input": "a"})
    assert await sample(client, "gateway_requests_total", model="m", outcome="ok") == 1
    assert await sample(client, "gateway_requests_total", model="m", outcome="invalid_value") == 1
    assert await sample(client, "gateway_requests_total", model="unknown", outcome="model_not_found") == 1
    assert await sample(client, "gateway_inputs_total", model="m") == 2
    assert await sample(client, "gateway_input_tokens_total", model="m") == 3
    assert MARKER not in (await client.get("/metrics")).text


async def test_labels_stay_bounded_whatever_clients_send(client):
    before = len((await client.get("/metrics")).text.splitlines())
    for number in range(50):
        await client.post(f"/v1/path-{number}", json={})
        await client.post("/v1/embeddings", json={"model": f"model-{number}", "input": "a"})
        await client.request(f"METHOD{number}", "/v1/models")
    after = len((await client.get("/metrics")).text.splitlines())
    assert after - before < 100  # a new route or outcome has its histogram; fifty of each would be thousands


async def test_a_client_who_leaves_stops_the_work(gateway, client, embedder):
    embedder.gate = asyncio.Event()

    async def leave():
        await embedder.is_waiting.wait()
        return {"type": "http.disconnect"}

    connection = Connection(request_message(), leave)
    await gateway(connection.scope, connection.receive, connection.send)
    await asyncio.sleep(0)  # the work is a task of its own, and ends in the loop's next turn
    assert embedder.num_cancelled == 1
    assert gateway.admission.num_requests == gateway.admission.num_bytes == 0
    assert await sample(client, "gateway_requests_total", model="m", outcome="client_gone") == 1


async def test_a_client_who_leaves_in_the_middle_of_its_body_is_forgotten(gateway, client):
    begun = {"type": "http.request", "body": b'{"model', "more_body": True}
    connection = Connection(begun, {"type": "http.disconnect"})
    await gateway(connection.scope, connection.receive, connection.send)
    assert gateway.admission.num_requests == gateway.admission.num_bytes == 0
    assert await sample(client, "gateway_requests_total", model="unknown", outcome="client_gone") == 1


async def test_bodies_are_bounded_all_together(gateway, embedder):
    embedder.gate = asyncio.Event()
    held = [Connection(request_message("x" * 70_000), asyncio.Event().wait) for _ in range(2)]
    tasks = [asyncio.create_task(gateway(each.scope, each.receive, each.send)) for each in held]
    await embedder.is_waiting.wait()
    third = Connection(request_message("x" * 70_000))
    await gateway(third.scope, third.receive, third.send)
    assert third.status == 503
    embedder.gate.set()
    await asyncio.gather(*tasks)
    assert [each.status for each in held] == [200, 200]
    assert gateway.admission.num_bytes == 0


async def test_the_log_tells_what_was_asked_and_never_the_text_or_the_key(gateway, client, embedder, capfd):
    log.configure(level="info", line_format="json")
    await client.post("/v1/embeddings", json={"model": "m", "input": [MARKER, "b c"]})
    await client.post("/v1/embeddings", json={"model": MARKER, "input": MARKER})
    await client.post("/v1/embeddings", content=MARKER.encode())
    await client.post("/v1/embeddings", json={}, headers={"api-key": MARKER * 2})
    embedder.raises = RuntimeError(MARKER)
    await client.post("/v1/embeddings", json={"model": "m", "input": f"another {MARKER}"})
    written = capfd.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert MARKER not in written
    assert KEY not in written
    assert [line["status"] for line in requests] == [200, 404, 400, 401, 500]
    assert requests[0]["inputs"] == 2
    assert requests[0]["tokens"] == 3
    assert requests[0]["model"] == "m"
    assert requests[0]["key"].startswith("env-")
    assert [line["code"] for line in requests[1:]] == ["model_not_found", "invalid_json", "invalid_api_key", "internal_error"]
    assert any(line["event"] == "internal_error" and line["error"] == "RuntimeError" for line in lines)


async def test_nobody_needs_a_key_where_the_configuration_says_so(make):
    gateway = make(auth=AuthSettings(mode="none"))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        assert (await client.post("/v1/embeddings", json={"model": "m", "input": "a"})).status_code == 200
    await gateway.close()


async def test_models_are_listed_with_their_aliases(client):
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["m", "org/m", "text-embedding-3-small"]
    for name in ("org/m", "org%2Fm"):
        one = (await client.get(f"/v1/models/{name}")).json()
        assert one in listed["data"]
        assert one["alias_of"] == "m"
        assert {"object", "created", "owned_by", "fingerprint", "dimensions"} <= set(one)
    missing = await client.get("/v1/models/org/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
