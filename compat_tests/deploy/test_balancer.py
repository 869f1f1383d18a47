"""Compose's balancer: the real nginx with its own file, in front of what a name server says are the replicas."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI

from compat_tests.deploy.part import DEPLOY, part
from compat_tests.deploy.recorder import NameServer, recording
from compat_tests.deploy.test_nginx import CLAIMS, assert_no_claim_passed
from compat_tests.process import Gateway, free_port
from compat_tests.texts import MODEL
from compat_tests.waiting import until

CONFIG = DEPLOY / "nginx/balancer.conf"
REPLICAS = ["127.0.0.2", "127.0.0.3"]


@contextmanager
def balancing(folder: Path, names: NameServer, port: int) -> Iterator[httpx2.Client]:
    """A client of the balancer, whose replicas are what `names` says, all on `port`."""
    own = free_port()
    text = CONFIG.read_text()
    for old, new in {
        "listen 8000": f"listen 127.0.0.1:{own}",
        "resolver 127.0.0.11": f"resolver 127.0.0.1:{names.port}",
        "http://$replicas:8000": f"http://$replicas:{port}",
        "/tmp/": f"{folder}/",  # noqa: S108 - of the container
        "worker_processes auto": "worker_processes 1",
        "/dev/stderr": f"{folder}/error.log",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    command = [part("nginx", package="nginx-light"), "-p", f"{folder}/", "-c", "nginx.conf", "-e", f"{folder}/error.log"]
    process = subprocess.Popen([*command, "-g", "daemon off; user root;"])
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{own}", timeout=30) as client:

            def answers() -> bool:
                try:
                    return client.get("/balancer").status_code == 204
                except httpx2.HTTPError:
                    return False

            until(answers, seconds=20, what="nginx")
            yield client
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def names() -> Iterator[NameServer]:
    made = NameServer(REPLICAS)
    yield made
    made.close()


def test_all_replicas_serve_and_what_a_client_claims_of_itself_reaches_none(names: NameServer, tmp_path: Path) -> None:
    with (
        recording(REPLICAS[0]) as first,
        recording(REPLICAS[1], first.port) as second,
        balancing(tmp_path, names, first.port) as http,
    ):
        for path in ("/v1/embeddings", "/admin/keys", "/page/live", "/livez"):
            for _ in range(10):
                assert http.get(path, headers=CLAIMS).status_code == 200
        assert len(first.requests) + len(second.requests) == 40
        # nginx takes an address by chance each time: all 40 at one replica are 1 in 5e11, 9 to 31 were seen.
        assert first.requests
        assert second.requests
        for sent in [*first.requests, *second.requests]:
            assert_no_claim_passed(sent)
        assert http.get("/metrics").status_code == 404


def test_a_replica_that_drains_or_is_gone_costs_nobody_a_request_and_a_new_one_is_found(names: NameServer, tmp_path: Path) -> None:
    with recording(REPLICAS[0]) as stays, balancing(tmp_path, names, stays.port) as http:
        with recording(REPLICAS[1], stays.port) as drains:
            drains.status = 503
            assert [http.post("/v1/embeddings", content=b"{}").status_code for _ in range(20)] == [200] * 20
            assert drains.requests
        assert [http.post("/v1/embeddings", content=b"{}").status_code for _ in range(20)] == [200] * 20
        names.addresses = ["127.0.0.4"]
        with recording("127.0.0.4", stays.port) as new:
            until(lambda: http.get("/livez").status_code == 200 and len(new.requests) > 0, seconds=20, what="the new replica")
        names.addresses = []
        until(lambda: http.get("/livez").status_code == 503, seconds=20, what="nobody to ask")
        answer = http.get("/livez")
        assert (answer.headers["retry-after"], answer.json()["error"]["code"]) == ("2", "server_overloaded")


def test_the_making_of_a_key_is_not_sent_twice(names: NameServer, tmp_path: Path) -> None:
    with (
        recording(REPLICAS[0]) as first,
        recording(REPLICAS[1], first.port) as second,
        balancing(tmp_path, names, first.port) as http,
    ):
        first.status = second.status = 503
        assert http.post("/admin/keys", content=b"{}").status_code == 503
        assert len(first.requests) + len(second.requests) == 1


def test_the_real_client_is_served_by_a_real_gateway_beside_a_dead_one(
    names: NameServer, tmp_path: Path, gateway: Gateway, key: str
) -> None:
    names.addresses = ["127.0.0.1", "127.0.0.9"]
    with (
        balancing(tmp_path, names, gateway.port) as http,
        OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0) as client,
    ):
        for number in range(10):
            assert len(client.embeddings.create(model=MODEL, input=f"text {number}").data) == 1
