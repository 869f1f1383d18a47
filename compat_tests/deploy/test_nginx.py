"""The TLS front: the real nginx in front of a real gateway, reached by the real client."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.deploy.part import DEPLOY, part, told
from compat_tests.deploy.recorder import Recorder, recording
from compat_tests.process import Gateway, free_port
from compat_tests.texts import MODEL, prose
from compat_tests.truth import Truth, assert_close
from compat_tests.waiting import until

CONFIG = DEPLOY / "nginx/gateway.conf"
WRAPPER = """
daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  include {folder}/gateway.conf;
}}
"""
MB = 1024 * 1024
# What a client may claim of itself or of who stands between.
CLAIMS = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6",
    "Via": "1.1 6.6.6.6",
}


def assert_no_claim_passed(sent: dict[str, list[str]]) -> None:
    assert "6.6.6.6" not in str(sent)
    assert "gopher" not in str(sent)
    assert (sent["x-forwarded-for"], sent["x-real-ip"]) == (["127.0.0.1"], ["127.0.0.1"])
    assert not {"forwarded", "via"} & set(sent)


class Front:
    """nginx in a folder of its own, on a free port."""

    def __init__(self, folder: Path, gateway: Gateway | Recorder) -> None:
        self.folder, self.gateway, self.port = folder, gateway, free_port()
        self.certificate = folder / "gateway.crt"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        keys = ["-newkey", "rsa:2048", "-nodes", "-keyout", folder / "gateway.key", "-out", self.certificate, "-days", "2"]
        told(part("openssl", package="openssl"), "req", "-x509", *keys, *subject)
        text = CONFIG.read_text()
        for old, new in {
            "listen 443": f"listen 127.0.0.1:{self.port}",
            "/etc/nginx/tls": str(folder),
            "server 127.0.0.1:8000": f"server 127.0.0.1:{gateway.port}",
        }.items():
            assert text.count(old) >= 1, old
            text = text.replace(old, new)
        (folder / "gateway.conf").write_text(text)
        (folder / "nginx.conf").write_text(WRAPPER.format(folder=folder))

    @property
    def command(self) -> list[str]:
        return [part("nginx", package="nginx-light"), "-p", f"{self.folder}/", "-c", "nginx.conf", "-e", f"{self.folder}/error.log"]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self) -> httpx2.Client:
        return httpx2.Client(verify=ssl.create_default_context(cafile=str(self.certificate)), base_url=self.url, timeout=60)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, gateway: Gateway) -> Iterator[Front]:
    made = Front(tmp_path_factory.mktemp("nginx"), gateway)
    process = subprocess.Popen(made.command)
    try:
        until(made.listens, seconds=20, what="nginx")
        yield made
    finally:
        process.terminate()
        process.wait(20)


def test_the_configuration_is_valid(front: Front) -> None:
    assert "syntax is ok" in told(*front.command, "-t")


def test_the_real_client_is_served_through_tls(front: Front, key: str, truth: Truth) -> None:
    texts = [prose(20, seed) for seed in range(50)]
    with front.client() as http, OpenAI(base_url=f"{front.url}/v1", api_key=key, http_client=http) as client:
        reply = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
        assert_close([row.embedding for row in reply.parse().data], truth.vectors(texts))
        assert reply.headers["x-request-id"].startswith("req_")
        assert "strict-transport-security" in reply.headers


def test_a_large_answer_and_a_large_body_pass(front: Front, key: str) -> None:
    body = {"model": MODEL, "input": [prose(30, 1), *["short"] * 2047], "encoding_format": "float"}
    with front.client() as http:
        answer = http.post("/v1/embeddings", json=body, headers={"api-key": key})
    assert answer.status_code == 200
    assert len(answer.content) > 4 * MB


def test_a_body_that_is_too_large_is_refused_by_the_gateway_itself(front: Front, key: str) -> None:
    with front.client() as http:
        answers = [http.post("/v1/embeddings", content=b" " * size, headers={"api-key": key}) for size in (16 * MB + 1000, 18 * MB)]
    assert [answer.status_code for answer in answers] == [413, 413]
    assert "at most 16777216 bytes" in answers[0].json()["error"]["message"]
    assert answers[1].json()["error"]["code"] == "request_too_large"


def test_the_inside_is_told_nothing_of_outside_an_allowed_network(front: Front, tmp_path: Path, gateway: Gateway) -> None:
    closed = Front(tmp_path, gateway)
    text = (tmp_path / "gateway.conf").read_text()
    (tmp_path / "gateway.conf").write_text(text.replace("allow 127.0.0.1;", "allow 192.0.2.1;"))
    process = subprocess.Popen(closed.command)
    try:
        until(closed.listens, seconds=20, what="nginx")
        with closed.client() as http, front.client() as allowed:
            refused = http.get("/metrics")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_url")
            assert allowed.get("/metrics").status_code == 200
            assert http.get("/livez").status_code == 200
    finally:
        process.terminate()
        process.wait(20)


def test_a_gateway_that_is_unavailable_is_a_503_that_clients_understand(tmp_path: Path, own_gateway) -> None:
    with running(own_gateway()) as gateway:
        front = Front(tmp_path, gateway)
        process = subprocess.Popen(front.command)
        try:
            until(front.listens, seconds=20, what="nginx")
            with front.client() as http:
                assert http.get("/v1/models", headers={"api-key": ENVIRONMENT_KEY}).status_code == 200
                gateway.stop()
                answer = http.get("/v1/models", headers={"api-key": ENVIRONMENT_KEY})
        finally:
            process.terminate()
            process.wait(20)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["code"] == "server_overloaded"


def test_what_a_client_claims_of_itself_passes_at_no_location(tmp_path: Path) -> None:
    """Every location that passes requests on, those of the inside too."""
    paths = ("/v1/embeddings", "/v1/models", "/metrics", "/admin/keys", "/admin", "/page/live", "/livez", "//admin/keys")
    with recording() as inside:
        front = Front(tmp_path, inside)
        process = subprocess.Popen(front.command)
        try:
            until(front.listens, seconds=20, what="nginx")
            with front.client() as http:
                assert [http.get(path, headers=CLAIMS).status_code for path in paths] == [200] * len(paths)
                twice = [*CLAIMS.items(), ("X-Forwarded-For", "6.6.6.6, 6.6.6.6"), ("x_forwarded_for", "6.6.6.6")]
                assert http.post("/admin/keys", headers=twice, content=b"{}").status_code == 200
        finally:
            process.terminate()
            process.wait(20)
        assert len(inside.requests) == len(paths) + 1
        for sent in inside.requests:
            assert_no_claim_passed(sent)
            assert sent["x-forwarded-proto"] == ["https"]
    text = CONFIG.read_text()
    assert text.count("proxy_pass ") == 2
    for location in text.split("\n    location ")[1:]:
        assert "proxy_set_header" not in location, "it would undo those of the server"


def test_the_log_of_a_gateway_that_trusts_the_front_names_who_really_asked(tmp_path: Path, own_gateway) -> None:
    with running(
        own_gateway(GATEWAY__SERVER__TRUSTED_PROXIES='["127.0.0.0/8", "6.0.0.0/8"]', GATEWAY__LOG__FORMAT="json")
    ) as gateway:
        front = Front(tmp_path, gateway)
        process = subprocess.Popen(front.command)
        try:
            until(front.listens, seconds=20, what="nginx")
            with front.client() as http:
                for path in ("/admin/keys", "/v1/models"):
                    http.get(path, headers={**CLAIMS, "api-key": ENVIRONMENT_KEY})
        finally:
            process.terminate()
            process.wait(20)
        gateway.stop()
    assert "6.6.6.6" not in gateway.log
    assert gateway.log.count('"client":"127.0.0.1"') + gateway.log.count('"client": "127.0.0.1"') >= 2
